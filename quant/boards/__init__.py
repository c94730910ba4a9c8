"""Devices under test behind one small interface: processes of this machine, an emulator, chips."""
