"""Whatever comes over the line, the board answers with its error, counts it, and decides right the next time."""

from quant.testing.suites.hil.wire_faults import *  # noqa: F403
