"""The virtual board: the firmware's own core on the host, behind a pseudo-terminal."""
