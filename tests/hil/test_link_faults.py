"""A line that loses, flips, repeats and delays bytes: every decision that comes through is right all the same."""

from quant.testing.suites.hil.link_faults import *  # noqa: F403
