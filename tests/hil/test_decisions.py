"""Whole decisions: the board's are the host's, and they have the properties a set policy has."""

from quant.testing.suites.hil.decisions import *  # noqa: F403
