"""Devices under test: the wire protocol, the link, and boards behind one small interface."""
