"""Every candidate of the run keeps the limits, and there is a winner: `pytest --run runs/mine`."""

from quant.testing.suites.acceptance import *  # noqa: F403
