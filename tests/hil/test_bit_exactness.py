"""Both sub-models of every track give the bytes that TFLite-Micro gives on the host, whatever goes in."""

from quant.testing.suites.hil.bit_exactness import *  # noqa: F403
