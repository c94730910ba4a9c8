"""What the board prints and how it comes back, read by pytest-embedded's ``dut`` on the same port."""

from quant.testing.suites.hil.boot import *  # noqa: F403
