"""The acceptance criteria of a run, each track on its own: ``pytest tests/acceptance --run DIR``."""

from quant.testing.suites.acceptance import *  # noqa: F403
