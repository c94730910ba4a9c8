"""The run is no worse than the one that was accepted: `pytest -m regression --run runs/new`."""

from quant.testing.suites.regression import *  # noqa: F403
