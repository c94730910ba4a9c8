"""What the tests of a board share: the host's answers, and whether the board still gives them."""

from quant.testing.suites.hil.fixtures import *  # noqa: F403
