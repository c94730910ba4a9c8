"""What the stress test of the run found, on the board: its worst frames, missed and false actions."""

from quant.testing.suites.hil.stress import *  # noqa: F403
