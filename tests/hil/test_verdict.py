"""What the run may claim after this board: only the target chip confirms a winner."""

from quant.testing.suites.hil.verdict import *  # noqa: F403
