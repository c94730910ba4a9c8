"""Writes a sub-model as .tflite, every integer and scale as given.

A converter rounds weights itself; here the integers are chosen before. What TFLite-Micro and LiteRT do not read is left
out (names, signatures, metadata), so the files are smaller than the converter's. The format is declared in
``schema.fbs`` of TensorFlow Lite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.policy.policy import Activation
from quant.tracks.integers import IntegerLayer, bias_scale, tensor_scale
from quant.tracks.plan import Range

FUSED_CODES: dict[Activation, int] = {"linear": 0, "relu": 1, "relu6": 3}
OPERATORS: dict[Activation, str] = {"tanh": "TANH", "sigmoid": "LOGISTIC", "elu": "ELU"}
VERSIONS = {"FULLY_CONNECTED": 4, "TANH": 2, "LOGISTIC": 2, "ELU": 1}
"""Of the operators with int8 tensors, in TensorFlow Lite's numbering (``op_version.cc``)."""
VERSIONS_16 = {"FULLY_CONNECTED": 7, "TANH": 3, "LOGISTIC": 3}
"""Of those with int16 tensors."""
PER_CHANNEL_VERSION = 12
"""Of FULLY_CONNECTED with a scale for each output."""


def write_model(layers: Sequence[IntegerLayer]) -> bytes:
    """A chain of layers -> the bytes of a .tflite with input and output of batch 1, int8 or int16 as its ranges are."""
    from ai_edge_litert import schema_py_generated as schema

    from quant.tracks.elu import AlignedBuilder

    writer = _Writer(schema, _version(layers))
    entry = current = writer.activation(layers[0].source, layers[0].weight.shape[1])
    for layer in layers:
        current = writer.layer(layer, current)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = writer.tensors, writer.operators
    graph.inputs, graph.outputs = [entry], [current]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], writer.buffers
    model.operatorCodes = [writer.operator_code(name) for name in writer.codes]
    builder = AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _version(layers: Sequence[IntegerLayer]) -> dict[str, int]:
    if layers[0].source.bits == 16:
        return VERSIONS_16
    per_channel = any(len(layer.scale) > 1 for layer in layers)
    return VERSIONS | ({"FULLY_CONNECTED": PER_CHANNEL_VERSION} if per_channel else {})


@dataclass
class _Writer:
    """Collects tensors, their data and operators; buffer 0 is the empty one by convention."""

    schema: Any
    versions: dict[str, int]
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffers.append(self.schema.BufferT())

    def activation(self, own: Range, size: int) -> int:
        kind = self.schema.TensorType.INT8 if own.bits == 8 else self.schema.TensorType.INT16
        return self._tensor(kind, (1, size), np.array([tensor_scale(own)]), [own.zero_point])

    def layer(self, layer: IntegerLayer, source: int) -> int:
        """Adds FULLY_CONNECTED, and the activation where it is an operator of its own; gives the output's index."""
        outputs = len(layer.weight)
        zeros = [0] * len(layer.scale)
        weight = self._tensor(self.schema.TensorType.INT8, layer.weight.shape, layer.scale, zeros, layer.weight)
        steps = bias_scale(layer.source, layer.scale)
        kind = self.schema.TensorType.INT32 if layer.bias.dtype == np.int32 else self.schema.TensorType.INT64
        bias = self._tensor(kind, (outputs,), steps, zeros, layer.bias)
        target = self.activation(layer.ranges.before or layer.ranges.after, outputs)
        options = self.schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = FUSED_CODES.get(layer.activation, 0)
        operator = self._operator("FULLY_CONNECTED", [source, weight, bias], target)
        operator.builtinOptionsType = self.schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = options
        if layer.ranges.before is None:
            return target
        activated = self.activation(layer.ranges.after, outputs)
        self._operator(OPERATORS[layer.activation], [target], activated)
        return activated

    def operator_code(self, name: str) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = self.versions[name]
        return code

    def _operator(self, name: str, inputs: list[int], output: int) -> Any:
        if name not in self.codes:
            self.codes.append(name)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(name), inputs, [output]
        self.operators.append(operator)
        return operator

    def _tensor(
        self,
        kind: int,
        shape: tuple[int, ...],
        scale: NDArray[np.floating[Any]],
        zero_point: list[int],
        data: NDArray[Any] | None = None,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.type, tensor.shape = kind, list(shape)
        tensor.quantization = self.schema.QuantizationParametersT()
        tensor.quantization.scale = scale.astype(np.float32)
        tensor.quantization.zeroPoint = np.array(zero_point, np.int64)
        if data is not None:
            buffer = self.schema.BufferT()
            little_endian = data.astype(data.dtype.newbyteorder("<"))
            buffer.data = np.frombuffer(little_endian.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1
