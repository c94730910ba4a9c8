"""Hardware in the loop: what only a device can show, or the firmware on one of its stand-ins."""
