"""What a decision takes by the board's own clock: each stage, each number of peers; held against the limit."""

from quant.testing.suites.hil.latency import *  # noqa: F403
