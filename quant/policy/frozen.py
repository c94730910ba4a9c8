"""A model of TensorFlow as one graph of constants, refused where it could do more than compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.errors import InputError
from quant.native import import_tensorflow
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS
from quant.policy.graph import GraphReader, operations

_FORBIDDEN = {
    *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "Save", "SaveSlices"),
    *(
        "PrintV2",
        "Print",
        "DebugIdentityV2",
        "WholeFileReaderV2",
        "TextLineReaderV2",
        "TextLineDataset",
        "GeneratorDataset",
        "TFRecordDataset",
        "FixedLengthRecordDataset",
        "TFRecordReaderV2",
        "FixedLengthRecordReaderV2",
        "ImmutableConst",
        "InitializeTableFromTextFile",
        "InitializeTableFromTextFileV2",
        "CreateSummaryFileWriter",
        "CreateSummaryDbWriter",
    ),
}
"""Operations with effects outside the graph, apart from those every SavedModel has to save and restore itself."""


@dataclass(frozen=True)
class Frozen:
    """A model as one graph of constants.

    Attributes:
        inputs: its placeholders by name.
        output: its one output tensor.
        run: (N, ...) arrays by input name -> (N, A) float32.
        constant: the value of a tensor of the graph that depends on no input.
        where: what errors call it.
    """

    inputs: dict[str, Any]
    output: Any
    run: Callable[[Mapping[str, Any]], F32]
    constant: Callable[[Any], Any]
    where: str

    @property
    def reader(self) -> GraphReader:
        """Reads its graph."""
        return GraphReader(self.inputs, self.constant, self.where)


def freeze(function: Any, where: str) -> Frozen:
    """Freezes a concrete function with keyword inputs and one output.

    Raises:
        InputError: it has several outputs.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    check_operations(frozen.graph.as_graph_def(), where)
    names = _input_names(function, len(frozen.inputs))
    outputs = [tensor for tensor in frozen.outputs if tensor.dtype.is_floating]
    if len(outputs) != 1:
        raise InputError(f"gives {len(frozen.outputs)} outputs", where=where, expected="one output of floats")
    index = [tensor.name for tensor in frozen.outputs].index(outputs[0].name)

    def constant(tensor: Any) -> Any:
        with tf.compat.v1.Session(graph=frozen.graph) as session:
            return session.run(tensor)

    def run(arrays: Mapping[str, Any]) -> F32:
        ordered = [_array_for(arrays, name, tensor, where) for name, tensor in zip(names, frozen.inputs, strict=True)]
        batch = frozen.inputs[0].shape[0]
        return _run_batches(lambda parts: frozen(*parts)[index], tf, ordered, frozen.inputs, batch)

    return Frozen(dict(zip(names, frozen.inputs, strict=True)), outputs[0], run, constant, where)


def _array_for(arrays: Mapping[str, Any], name: str, tensor: Any, where: str) -> Any:
    lower = name.lower()
    keys = (name, PEER_MASK if "mask" in lower else EGO if EGO in lower else PEERS)
    array = next((arrays[key] for key in keys if key in arrays), None)
    if array is None:
        raise InputError(f"has an input {name}", where=where, expected=", ".join(arrays))
    return array


def _run_batches(call: Callable[[list[Any]], Any], tf: Any, arrays: list[Any], inputs: Any, batch: int | None) -> F32:
    """Runs all rows, in pieces where the model's batch is fixed."""
    rows = len(arrays[0])
    step = rows if batch is None else batch
    results = []
    for start in range(0, rows, step):
        wanted = [np.arange(start, start + step) % rows for _ in arrays]
        parts = [
            tf.constant(array[index], tensor.dtype) if array.dtype != np.bool_ else tf.cast(array[index], tensor.dtype)
            for array, index, tensor in zip(arrays, wanted, inputs, strict=True)
        ]
        results.append(np.asarray(call(parts), np.float32))
    return np.concatenate(results)[:rows]


def _input_names(function: Any, count: int) -> list[str]:
    """Keyword names of a signature, in the order of the function's inputs."""
    return [tensor.name.split(":")[0] for tensor in function.inputs[:count]]


def check_operations(graph_def: Any, where: str) -> None:
    """Refuses a graph with an operation of `_FORBIDDEN`, before anything of it has run."""
    forbidden = sorted(set(operations(graph_def)) & _FORBIDDEN)
    if forbidden:
        raise InputError(
            f"uses {', '.join(forbidden)}, which reach outside the graph",
            where=where,
            expected="a policy that only computes",
            hint="it was not run; export the policy without them",
        )


def first_line(error: Exception) -> str:
    """What an exception of a library says, short enough for a message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
