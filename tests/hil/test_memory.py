"""The models fit the board, and deciding uses nothing up."""

from quant.suites.hil.memory import *  # noqa: F403
