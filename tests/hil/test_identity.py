"""The board is the one that was asked for, and runs the models of the run and no others."""

from quant.testing.suites.hil.identity import *  # noqa: F403
