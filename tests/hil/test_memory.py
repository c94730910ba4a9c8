"""The models fit the board, and deciding uses nothing up."""

from quant.testing.suites.hil.memory import *  # noqa: F403
