"""TFLite-Micro itself, for tests."""

from __future__ import annotations

import numpy as np

from quant.runners.engines import micro_interpreter
from quant.runners.flatbuffer import read_model
from quant.tracks.candidate import Codes


def tflite_micro(tflite: bytes, q: Codes) -> Codes:
    """(N, K) -> (N, M) codes, one ``Invoke`` a row."""
    interpreter, model = micro_interpreter(tflite), read_model(tflite)
    rows = []
    for row in q:
        interpreter.set_input(row.reshape(model.input.shape), 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0).reshape(-1).copy())
    return np.array(rows, q.dtype)
