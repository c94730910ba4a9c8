"""Reads a sub-model: a .tflite whose operators form one chain that TFLite-Micro can run.

Weights are int8; activations are int8, or int16 with zero point 0, all of one width.

The reader is the guard in front of the C++ runtimes, which trust a file and crash on a damaged one: whatever it returns
has been bounds-checked, and whatever it does not understand is an :class:`~quant.errors.InputError` that names it.

The format is declared in ``schema.fbs`` of TensorFlow Lite; quantization follows its 8-bit quantization specification
and, with int16, what TFLite-Micro's kernels of "16x8" ask for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from struct import error as StructError  # noqa: N812 - an exception is a class
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.tracks.candidate import Bits, Codes, code_limits, code_type

FusedActivation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]
UnaryOperator = Literal["TANH", "LOGISTIC", "ELU", "RELU", "RELU6", "QUANTIZE", "RESHAPE"]

OPERATORS = ("FULLY_CONNECTED", "TANH", "LOGISTIC", "ELU", "RELU", "RELU6", "QUANTIZE", "RESHAPE")
"""The operators of a sub-model, by their names in the schema. Only FULLY_CONNECTED has weights."""

_FUSED: dict[int, FusedActivation] = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
OPERATORS_16: tuple[str, ...] = ("FULLY_CONNECTED", "TANH", "LOGISTIC")
"""The operators of a sub-model with int16 activations."""

_INT8, _INT16, _INT32, _INT64 = 9, 7, 2, 4
_WIDTHS: dict[int, Bits] = {_INT8: 8, _INT16: 16}
_FIXED: dict[tuple[str, Bits], tuple[np.float32, int]] = {
    ("TANH", 8): (np.float32(2**-7), 0),
    ("LOGISTIC", 8): (np.float32(2**-8), -128),
    ("TANH", 16): (np.float32(2**-15), 0),
    ("LOGISTIC", 16): (np.float32(2**-15), 0),
}
"""Scale and zero point of the outputs that TFLM computes in fixed point, whatever the file states."""
_MAX_TABLE_SCALE = 2.0
"""Of the input of an int16 TANH or LOGISTIC: from 32767 / 12288 on C++ leaves the 16 bits of its multiplier."""
_NO_OPTIONAL_TENSOR = -1
_MAX_ITEMS = 4096


@dataclass(frozen=True)
class Quantized:
    """A tensor of activations with one scale: real = scale * (q - zero_point).

    Attributes:
        shape: as in the file; every dimension but the last is 1.
        scale: a positive float32.
        zero_point: -128 to 127; 0 of int16.
        bits: width of the codes, 8 or 16.
    """

    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int
    bits: Bits = 8

    @property
    def size(self) -> int:
        """K, the number of values."""
        return math.prod(self.shape)

    def dequantize(self, q: Codes) -> NDArray[np.float32]:
        """Codes -> float32, of any shape."""
        real: NDArray[np.float32] = (q.astype(np.float32) - np.float32(self.zero_point)) * self.scale
        return real

    def quantize(self, x: NDArray[np.float32]) -> Codes:
        """float32 -> codes of any shape: round half to even, saturating."""
        steps = np.rint(x / self.scale) + np.float32(self.zero_point)
        codes: Codes = np.clip(steps, *code_limits(self.bits)).astype(code_type(self.bits))
        return codes

    def same_quantization(self, other: Quantized) -> bool:
        """Whether equal codes mean equal values."""
        return (self.scale, self.zero_point, self.bits) == (other.scale, other.zero_point, other.bits)


@dataclass(frozen=True)
class FullyConnected:
    """One FULLY_CONNECTED operator.

    Attributes:
        input, output: (1, K) and (1, M).
        weight: (M, K) int8, zero point 0.
        weight_scale: (1,) float32 per tensor, or (M,) per channel.
        bias: (M,) int32, or int64 with int16 activations, in steps of input scale times weight scale; zeros where the
            file has none.
        activation: the fused activation.
    """

    input: Quantized
    output: Quantized
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32 | np.int64]
    activation: FusedActivation

    @property
    def operator(self) -> str:
        """Its name in the schema."""
        return "FULLY_CONNECTED"

    @property
    def per_channel(self) -> bool:
        """Whether each output has its own weight scale. TFLM asks for more than one scale, so M = 1 is per tensor."""
        return len(self.weight_scale) > 1


@dataclass(frozen=True)
class Unary:
    """An operator without weights that maps each value by itself (RESHAPE maps it to itself)."""

    operator: UnaryOperator
    input: Quantized
    output: Quantized


Layer = FullyConnected | Unary


@dataclass(frozen=True)
class Model:
    """A sub-model: codes in, a chain of operators, codes of the same width out."""

    input: Quantized
    output: Quantized
    layers: tuple[Layer, ...]

    @property
    def bits(self) -> Bits:
        """Width of all activations."""
        return self.input.bits

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators in the order they run."""
        return tuple(layer.operator for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one invocation."""
        return sum(layer.weight.size for layer in self.layers if isinstance(layer, FullyConnected))


def read_model(tflite: bytes, where: object = None) -> Model:
    """Reads and checks a sub-model.

    Args:
        tflite: the file's content.
        where: what to call it in an error.

    Raises:
        InputError: the bytes are not a TFLite model, are damaged, or hold something a sub-model may not have.
    """
    name = "model" if where is None else where
    if tflite[4:8] != b"TFL3":
        raise InputError("not a TFLite model", where=name, expected="the file identifier TFL3 at byte 4")
    try:
        return _Reader(tflite, name).read()
    except (StructError, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError) as error:
        raise InputError("the TFLite file is damaged", where=name, hint=f"make it anew ({error})") from error


def operators(tflite: bytes) -> tuple[str, ...]:
    """The operators of a sub-model in the order they run. Raises InputError as :func:`read_model`."""
    return read_model(tflite).operators


def macs(tflite: bytes) -> int:
    """Multiply-accumulates of one invocation. Raises InputError as :func:`read_model`."""
    return read_model(tflite).macs


def interface(tflite: bytes) -> tuple[Quantized, Quantized]:
    """Input and output: shape, scale and zero point. Raises InputError as :func:`read_model`."""
    model = read_model(tflite)
    return model.input, model.output


class _Reader:
    """One pass over one file. Every message names the operator or tensor it is about."""

    def __init__(self, tflite: bytes, where: object) -> None:
        # Imported here: the schema is 20,000 lines and costs 30 ms.
        from ai_edge_litert import schema_py_generated as schema

        self.where = where
        self.schema = schema
        self.names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        self.model = schema.Model.GetRootAs(tflite, 0)

    def read(self) -> Model:
        self._require(self.model.Version() == 3, f"schema version {self.model.Version()}", "version 3")
        self._require(
            self.model.SubgraphsLength() == 1, f"{self.model.SubgraphsLength()} subgraphs", "exactly one subgraph"
        )
        self.graph = self.model.Subgraphs(0)
        for what, length in (
            ("tensors", self.graph.TensorsLength()),
            ("operators", self.graph.OperatorsLength()),
            ("buffers", self.model.BuffersLength()),
            ("operator codes", self.model.OperatorCodesLength()),
        ):
            self._require(0 < length <= _MAX_ITEMS, f"{length} {what}", f"1 to {_MAX_ITEMS} {what}")
        source = self._only("input", self.graph.InputsLength(), self.graph.Inputs)
        target = self._only("output", self.graph.OutputsLength(), self.graph.Outputs)
        layers: list[Layer] = []
        current = source
        for index in range(self.graph.OperatorsLength()):
            layer, current = self._layer(index, current)
            layers.append(layer)
        self._require(current == target, "the last operator does not make the model's output", "one chain of operators")
        return Model(layers[0].input, layers[-1].output, tuple(layers))

    def _only(self, what: str, length: int, get: Any) -> int:
        self._require(length == 1, f"{length} {what}s", f"one {what}")
        return int(get(0))

    def _layer(self, index: int, current: int) -> tuple[Layer, int]:
        operator = self.graph.Operators(index)
        code_index = operator.OpcodeIndex()
        self._require(
            code_index < self.model.OperatorCodesLength(), f"operator {index} has no code", "a listed operator"
        )
        code = self.model.OperatorCodes(code_index)
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self.names.get(builtin, f"operator code {builtin}")
        where = f"operator {index} ({name})"
        self._require(
            name in OPERATORS,
            f"{where} is not supported",
            "a chain of " + ", ".join(OPERATORS),
            hint="build the policy of dense layers with linear, ReLU, ReLU6, tanh, ELU or sigmoid activations",
        )
        inputs = [int(operator.Inputs(i)) for i in range(_bounded(operator.InputsLength()))]
        outputs = [int(operator.Outputs(i)) for i in range(_bounded(operator.OutputsLength()))]
        self._require(
            bool(inputs) and inputs[0] == current, f"{where} breaks the chain", "the previous output as input"
        )
        self._require(len(outputs) == 1, f"{where} has {len(outputs)} outputs", "one output")
        self._require(outputs[0] != current, f"{where} overwrites its input", "an output tensor of its own")
        source, target = self._quantized(inputs[0], where), self._quantized(outputs[0], where)
        self._require(source.bits == target.bits, f"{where} turns int{source.bits} into int{target.bits}", "one width")
        self._require(
            source.bits == 8 or name in OPERATORS_16,
            f"{where} with int16 activations is not supported",
            "one of " + ", ".join(OPERATORS_16),
        )
        if name == "FULLY_CONNECTED":
            return self._fully_connected(operator, inputs, source, target, where), outputs[0]
        return self._unary(cast(UnaryOperator, name), inputs, source, target, where), outputs[0]

    def _fully_connected(
        self, operator: Any, inputs: list[int], source: Quantized, target: Quantized, where: str
    ) -> FullyConnected:
        self._require(len(inputs) in {2, 3}, f"{where} has {len(inputs)} inputs", "input, weights and perhaps a bias")
        options = self.schema.FullyConnectedOptions()
        self._require(
            operator.BuiltinOptionsType() == self.schema.BuiltinOptions.FullyConnectedOptions,
            f"{where} has no options",
            "FullyConnectedOptions",
        )
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        fused = options.FusedActivationFunction()
        self._require(fused in _FUSED, f"{where} has fused activation {fused}", "NONE, RELU, RELU_N1_TO_1 or RELU6")
        self._require(options.WeightsFormat() == 0, f"{where} has shuffled weights", "the default weights format")
        weight, weight_scale = self._weight(inputs[1], where)
        self._require(
            weight.shape == (target.size, source.size),
            f"{where} has weights {weight.shape} between {source.size} inputs and {target.size} outputs",
            f"weights {(target.size, source.size)}",
        )
        bias: NDArray[np.int32 | np.int64] = np.zeros(target.size, np.int32 if source.bits == 8 else np.int64)
        if len(inputs) == 3 and inputs[2] != _NO_OPTIONAL_TENSOR:
            bias = self._bias(inputs[2], target.size, source.bits, where)
        return FullyConnected(source, target, weight, weight_scale, bias, _FUSED[fused])

    def _unary(self, name: UnaryOperator, inputs: list[int], source: Quantized, target: Quantized, where: str) -> Unary:
        allowed = {1, 2} if name == "RESHAPE" else {1}
        self._require(len(inputs) in allowed, f"{where} has {len(inputs)} inputs", "one input")
        self._require(source.size == target.size, f"{where} turns {source.shape} into {target.shape}", "equal sizes")
        # TFLM computes these two in fixed point and never looks at the scale the file states for the output.
        fixed = _FIXED.get((name, source.bits))
        if fixed is not None:
            self._require(
                source.bits == 8 or float(source.scale) <= _MAX_TABLE_SCALE,
                f"{where} has an input scale of {source.scale:g}",
                f"with int16 a scale up to {_MAX_TABLE_SCALE:g}",
            )
            self._require(
                (target.scale, target.zero_point) == fixed,
                f"{where} has output scale {target.scale} and zero point {target.zero_point}",
                f"scale 1/{round(1 / float(fixed[0]))} and zero point {fixed[1]}",
            )
        if name in {"RESHAPE", "RELU6"}:
            self._require(
                source.same_quantization(target),
                f"{where} changes scale or zero point",
                "the same for input and output",
            )
        return Unary(name, source, target)

    def _quantized(self, index: int, where: str) -> Quantized:
        tensor = self._tensor(index, where)
        bits = _WIDTHS.get(tensor.Type(), 8)
        self._require(tensor.Type() in _WIDTHS, f"{where} has a tensor of type {self._type(tensor)}", "int8 or int16")
        self._require(not self._data(tensor, where), f"{where} computes on a constant", "an activation")
        shape = self._shape(tensor, where)
        self._require(
            len(shape) >= 1 and math.prod(shape[:-1]) == 1,
            f"{where} has a tensor of shape {shape}",
            "(1, K): batch size 1",
        )
        scales, zero_points = self._quantization(tensor, where)
        self._require(len(scales) == 1, f"{where} has an activation with {len(scales)} scales", "one scale")
        # Outside these C++ shifts by a negative amount or overflows an int32.
        self._require(
            2**-28 <= scales[0] <= 2**28, f"{where} has a scale of {scales[0]:g}", "a scale from 2^-28 to 2^28"
        )
        self._require(
            bits == 8 or not zero_points.any(), f"{where} has an int16 tensor with a zero point", "zero point 0"
        )
        return Quantized(shape, scales[0], int(zero_points[0]), bits)

    def _weight(self, index: int, where: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        tensor = self._tensor(index, where)
        self._require(tensor.Type() == _INT8, f"{where} has weights of type {self._type(tensor)}", "int8 weights")
        shape = self._shape(tensor, where)
        self._require(len(shape) == 2, f"{where} has weights of shape {shape}", "(outputs, inputs)")
        scales, zero_points = self._quantization(tensor, where)
        self._require(not zero_points.any(), f"{where} has weights with a zero point", "symmetric weights")
        if len(scales) > 1:
            self._require(
                len(scales) == shape[0] and tensor.Quantization().QuantizedDimension() == 0,
                f"{where} has {len(scales)} weight scales along dimension {tensor.Quantization().QuantizedDimension()} "
                f"of weights {shape}",
                "one scale, or one for each output along dimension 0",
            )
        return self._array(tensor, np.int8, shape, f"{where} weights"), scales

    def _bias(self, index: int, size: int, bits: Bits, where: str) -> NDArray[np.int32 | np.int64]:
        # The ESP component reads the bias of int16 activations as int64, whatever type the file states.
        code, kind, expected = (_INT32, np.int32, "an int32") if bits == 8 else (_INT64, np.int64, "an int64")
        tensor = self._tensor(index, where)
        self._require(tensor.Type() == code, f"{where} has a bias of type {self._type(tensor)}", f"{expected} bias")
        shape = self._shape(tensor, where)
        self._require(math.prod(shape) == size, f"{where} has a bias of shape {shape}", f"({size},)")
        return self._array(tensor, kind, (size,), f"{where} bias")

    def _tensor(self, index: int, where: str) -> Any:
        self._require(0 <= index < self.graph.TensorsLength(), f"{where} names tensor {index}", "a tensor that exists")
        tensor = self.graph.Tensors(index)
        self._require(not tensor.IsVariable(), f"{where} has a variable tensor", "a model without state")
        self._require(tensor.Sparsity() is None, f"{where} has a sparse tensor", "dense tensors")
        return tensor

    def _shape(self, tensor: Any, where: str) -> tuple[int, ...]:
        shape = tuple(int(tensor.Shape(i)) for i in range(_bounded(tensor.ShapeLength())))
        self._require(
            len(shape) <= 5 and all(0 < size <= 1 << 20 for size in shape),
            f"{where} has a tensor of shape {shape}",
            "up to 5 positive dimensions",
        )
        return shape

    def _quantization(self, tensor: Any, where: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        quantization = tensor.Quantization()
        self._require(
            quantization is not None and quantization.ScaleLength() > 0,
            f"{where} has a tensor without a scale",
            "an affine scale and zero point",
        )
        self._require(quantization.DetailsType() == 0, f"{where} has a tensor with custom quantization", "affine")
        scales = np.array(quantization.ScaleAsNumpy(), np.float32)
        self._require(
            bool(np.isfinite(scales).all() and (scales >= np.finfo(np.float32).tiny).all()),
            f"{where} has a scale that is not a positive number",
            "positive scales",
        )
        self._require(
            quantization.ZeroPointLength() == len(scales),
            f"{where} has {quantization.ZeroPointLength()} zero points for {len(scales)} scales",
            "as many zero points as scales",
        )
        zero_points = np.array(quantization.ZeroPointAsNumpy(), np.int64)
        self._require(
            bool(((zero_points >= -128) & (zero_points <= 127)).all()),
            f"{where} has a zero point outside int8",
            "-128 to 127",
        )
        return scales, zero_points

    def _data(self, tensor: Any, where: str) -> bytes:
        index = tensor.Buffer()
        self._require(index < self.model.BuffersLength(), f"{where} names buffer {index}", "a buffer that exists")
        buffer = self.model.Buffers(index)
        self._require(
            not (buffer.Offset() or buffer.Size()), f"{where} has data outside the flatbuffer", "a file below 2 GB"
        )
        return buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""

    def _array(self, tensor: Any, dtype: type, shape: tuple[int, ...], what: str) -> NDArray[Any]:
        data = self._data(tensor, what)
        need = math.prod(shape) * np.dtype(dtype).itemsize
        self._require(len(data) == need, f"{what} has {len(data)} bytes of data", f"{need} bytes")
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def _type(self, tensor: Any) -> str:
        names = {code: name for name, code in vars(self.schema.TensorType).items() if isinstance(code, int)}
        return str(names.get(tensor.Type(), tensor.Type()))

    def _require(self, ok: bool, what: str, expected: str, hint: str | None = None) -> None:
        if not ok:
            raise InputError(what, where=self.where, expected=expected, hint=hint)


def _bounded(length: int) -> int:
    """A length read from the file, refused before anything loops over it."""
    if length > _MAX_ITEMS:
        raise ValueError(f"a list of {length} items")
    return length
