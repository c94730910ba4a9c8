"""The instructions of a decision, counted in emulation, repeat and do not grow unnoticed. They are never a latency."""

from quant.testing.suites.hil.instructions import *  # noqa: F403
