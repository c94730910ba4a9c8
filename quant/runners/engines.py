"""What computes the two sub-models of a candidate: NumPy, TFLite-Micro, or LiteRT.

The C++ runtimes trust a file. Before they see one it has passed :func:`~quant.runners.flatbuffer.read_model` and
LiteRT's own flatbuffer verifier; a damaged file is an error here, never a crash.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from quant.errors import InputError
from quant.native import silent_stderr
from quant.runners.flatbuffer import Model
from quant.runners.tflm import TflmModel
from quant.tracks.candidate import Candidate, Codes, Part, SubModel, code_type

EngineName = Literal["numpy", "tflite_micro", "litert"]
ENGINES: tuple[EngineName, ...] = ("numpy", "tflite_micro", "litert")


class Engine(Protocol):
    """Runs the sub-models of one candidate."""

    @property
    def name(self) -> str:
        """How a report calls it."""

    def model(self, part: Part) -> Model:
        """What the sub-model's file says."""

    def invoke(self, part: Part, q: Codes) -> Codes:
        """(N, K) codes -> (N, M) codes."""


class NumpyEngine:
    """TFLM's arithmetic in NumPy: exact and by far the fastest that is. Verdicts use it."""

    name = "numpy"

    def __init__(self, candidate: Candidate) -> None:
        self._models = {sub.part: _checked(sub) for sub in (candidate.peer_encoder, candidate.policy_head)}

    def model(self, part: Part) -> Model:
        """What the sub-model's file says."""
        return self._models[part].model

    def invoke(self, part: Part, q: Codes) -> Codes:
        """(N, K) codes -> (N, M) codes."""
        return self._models[part].invoke(q)


class TfliteMicroEngine:
    """TFLite-Micro itself (the ``tflite_micro`` wheel), one row an ``Invoke``: the oracle of conformance tests."""

    name = "tflite_micro"

    def __init__(self, candidate: Candidate) -> None:
        submodels = (candidate.peer_encoder, candidate.policy_head)
        self._models = {sub.part: _checked(sub).model for sub in submodels}
        self._interpreters = {sub.part: micro_interpreter(sub.tflite, sub.part) for sub in submodels}

    def model(self, part: Part) -> Model:
        """What the sub-model's file says."""
        return self._models[part]

    def invoke(self, part: Part, q: Codes) -> Codes:
        """(N, K) codes -> (N, M) codes."""
        interpreter, model = self._interpreters[part], self._models[part]
        rows = np.ascontiguousarray(q).reshape(len(q), *model.input.shape)
        out = np.empty((len(q), model.output.size), code_type(model.bits))
        for row, into in zip(rows, out, strict=True):
            interpreter.set_input(row, 0)
            interpreter.invoke()
            into[:] = interpreter.get_output(0).reshape(-1)
        return out


class LiteRtEngine:
    """LiteRT with its default delegate (XNNPACK) on one thread, batched. It rounds once where TFLM rounds twice."""

    name = "litert"

    def __init__(self, candidate: Candidate) -> None:
        submodels = (candidate.peer_encoder, candidate.policy_head)
        self._models = {sub.part: _checked(sub).model for sub in submodels}
        self._interpreters = {sub.part: _litert(sub.tflite, sub.part, delegate=True) for sub in submodels}
        self._batch: dict[Part, int] = {}

    def model(self, part: Part) -> Model:
        """What the sub-model's file says."""
        return self._models[part]

    def invoke(self, part: Part, q: Codes) -> Codes:
        """(N, K) codes -> (N, M) codes."""
        model = self._models[part]
        # A RESHAPE holds the shape for one row, so such a model can't be given a batch.
        step = 1 if "RESHAPE" in model.operators else 4096
        out = np.empty((len(q), model.output.size), code_type(model.bits))
        for start in range(0, len(q), step):
            out[start : start + step] = self._chunk(part, q[start : start + step])
        return out

    def _chunk(self, part: Part, q: Codes) -> Codes:
        interpreter, shape = self._interpreters[part], self._models[part].input.shape
        source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        if self._batch.get(part) != len(q):
            with silent_stderr():  # it writes a line about its delegate, and has no setting against it
                interpreter.resize_tensor_input(source, [len(q), *shape[1:]] if len(shape) > 1 else list(shape))
                interpreter.allocate_tensors()
            self._batch[part] = len(q)
        interpreter.set_tensor(source, q.reshape(len(q), *shape[1:]) if len(shape) > 1 else q.reshape(shape))
        interpreter.invoke()
        out: Codes = interpreter.get_tensor(target).reshape(len(q), -1)
        return out


def make_engine(name: EngineName, candidate: Candidate) -> Engine:
    """The engine called ``name``, with both sub-models loaded.

    Raises:
        InputError: there is no such engine, or a sub-model is damaged or unsupported.
    """
    if name == "numpy":
        return NumpyEngine(candidate)
    if name == "tflite_micro":
        return TfliteMicroEngine(candidate)
    if name == "litert":
        return LiteRtEngine(candidate)
    raise InputError(f"no engine {name!r}", expected=" or ".join(ENGINES))


def micro_interpreter(tflite: bytes, where: object = None) -> Any:
    """A ``tflite_micro`` interpreter, its tensors allocated. The bytes must have passed ``read_model``.

    An arena that is too small crashes the process instead of failing, so it is generous: tensors and per-channel
    multipliers take less than 16 bytes for each byte of file, and the interpreter's own records are within a megabyte.

    Raises:
        InputError: the file fails the flatbuffer verifier, or TFLM refuses it.
    """
    from tflite_micro.python.tflite_micro import runtime

    _litert(tflite, where, delegate=False)
    try:
        return runtime.Interpreter.from_bytes(tflite, arena_size=(1 << 20) + 16 * len(tflite))
    except RuntimeError as error:
        raise InputError(
            f"TFLite-Micro refuses the model: {error}", where=where, hint="make the candidate again"
        ) from error


def _checked(submodel: SubModel) -> TflmModel:
    return TflmModel.from_bytes(submodel.tflite, submodel.part)


def _litert(tflite: bytes, where: object, *, delegate: bool) -> Any:
    """A LiteRT interpreter; making one runs the flatbuffer verifier over the whole file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with silent_stderr():  # it writes a line about its delegate, and has no setting against it
            return Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=resolver)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT refuses the model: {error}", where=where, hint="make the model anew") from error
