"""Episodes with the board deciding are the host's episodes, step by step."""

from quant.testing.suites.hil.closed_loop import *  # noqa: F403
