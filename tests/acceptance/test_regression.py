"""A run held against the baseline that `quant accept` wrote: ``pytest -m regression --run DIR``."""

from quant.testing.suites.regression import *  # noqa: F403
