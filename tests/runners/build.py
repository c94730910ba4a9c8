"""Writes INT8 sub-models with every parameter given, for tests: a chain of layers in, a .tflite out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from quant.runners.flatbuffer import FullyConnected, Layer, Quantized

FUSED = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}


@dataclass
class _Writer:
    """Collects tensors and buffers; buffer 0 is the empty one by convention."""

    buffers: list[Any]
    tensors: list[Any]
    codes: list[int]

    def tensor(
        self,
        name: str,
        dtype: int,
        shape: Sequence[int],
        *,
        scale: Any,
        zero_point: Any,
        data: NDArray[Any] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name, dtype, list(shape)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
            quantization.zeroPoint = np.atleast_1d(np.asarray(zero_point, np.int64))
            tensor.quantization = quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, quantized: Quantized) -> int:
        dtype = 9 if quantized.bits == 8 else 7
        return self.tensor(name, dtype, quantized.shape, scale=quantized.scale, zero_point=quantized.zero_point)

    def code(self, builtin: int) -> int:
        if builtin not in self.codes:
            self.codes.append(builtin)
        return self.codes.index(builtin)

    def operator(self, layer: Layer, index: int, source: int, target: int) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self.code(getattr(schema.BuiltinOperator, layer.operator))
        operator.inputs, operator.outputs = [source], [target]
        if isinstance(layer, FullyConnected):
            zeros = np.zeros(len(layer.weight_scale), np.int64)
            weight = self.tensor(
                f"weight{index}", 9, layer.weight.shape, scale=layer.weight_scale, zero_point=zeros, data=layer.weight
            )
            bias = -1
            if layer.bias.any():
                steps = layer.weight_scale * layer.input.scale
                dtype = 2 if layer.bias.dtype == np.int32 else 4
                bias = self.tensor(
                    f"bias{index}", dtype, layer.bias.shape, scale=steps, zero_point=zeros, data=layer.bias
                )
            operator.inputs += [weight, bias]
            options = schema.FullyConnectedOptionsT()
            options.fusedActivationFunction = FUSED[layer.activation]
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = options
        return operator


def model_object(layers: Sequence[Layer]) -> Any:
    """The schema's ModelT of a chain, for a test to damage before it is packed."""
    writer = _Writer([schema.BufferT()], [], [])
    current = first = writer.activation("input", layers[0].input)
    operators = []
    for index, layer in enumerate(layers):
        target = writer.activation(f"activation{index}", layer.output)
        operators.append(writer.operator(layer, index, current, target))
        current = target
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = "main", writer.tensors, operators
    graph.inputs, graph.outputs = [first], [current]
    model = schema.ModelT()
    model.version, model.description = 3, "test"
    model.subgraphs, model.buffers = [graph], writer.buffers
    model.operatorCodes = []
    for builtin in writer.codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        model.operatorCodes.append(code)
    return model


def pack(model: Any) -> bytes:
    """A ModelT as a .tflite."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite(layers: Sequence[Layer]) -> bytes:
    """A chain of layers as a .tflite."""
    return pack(model_object(layers))
