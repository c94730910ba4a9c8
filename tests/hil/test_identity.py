"""The board is the one that was asked for, and runs the models of the run and no others."""

from quant.suites.hil.identity import *  # noqa: F403
