"""Thousands of decisions without a pause: nothing is lost, nothing is counted twice, every one is right."""

from quant.testing.suites.hil.soak import *  # noqa: F403
