"""What only a real line shows: it is full, and nothing overruns."""

from quant.testing.suites.hil.line import *  # noqa: F403
