"""Runners execute a policy or a candidate on a batch of observations: float, TFLM arithmetic, TFLM itself, LiteRT.

Importing this package costs no more than NumPy; the C++ runtimes are loaded when an engine is made.
"""

from quant.runners.engines import ENGINES, Engine, EngineName, make_engine
from quant.runners.flatbuffer import Model, Quantized, interface, macs, operators, read_model
from quant.runners.parity import Difference, EngineParity, ParityReport, parity, parity_from_json
from quant.runners.pooling import Pool
from quant.runners.runner import Decision, FloatRunner, Int8Runner, Runner
from quant.runners.tflm import TflmModel, release_dependent

__all__ = [
    "ENGINES",
    "Decision",
    "Difference",
    "Engine",
    "EngineName",
    "EngineParity",
    "FloatRunner",
    "Int8Runner",
    "Model",
    "ParityReport",
    "Pool",
    "Quantized",
    "Runner",
    "TflmModel",
    "interface",
    "macs",
    "make_engine",
    "operators",
    "parity",
    "parity_from_json",
    "read_model",
    "release_dependent",
]
