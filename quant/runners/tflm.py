"""TFLite-Micro's integer arithmetic in NumPy: batched, and equal to the C++ kernels bit for bit.

TFLM rescales an accumulator by rounding twice (:mod:`quant.runners.fixed_point`). One fact makes that fast without
giving up exactness: sums of integers below 2^53 are exact in float64, in whatever order and with whatever threads BLAS
adds them, and an accumulator times its 31-bit mantissa still is such an integer. So weights are multiplied by the
mantissa beforehand, the bias and the halves of rounding stand in one more column, and a single matrix product gives
what is left to be rounded. The bound is computed from the weights; where it does not hold, the same formulas run in
int64.

With int16 activations TFLM holds accumulators in int64 and rescales them by a mantissa of 15 bits, rounding once.

Source: tflite-micro, ``lite/micro/kernels/*.cc`` and ``lite/kernels/internal/reference/integer_ops/*.h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.runners import fixed_point
from quant.runners.fixed_point import (
    INT32_MAX,
    Multiplier,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    reduced,
    rescale_wide,
)
from quant.runners.flatbuffer import FullyConnected, Layer, Model, Quantized, Unary, read_model
from quant.tracks.candidate import Codes, code_limits, code_type

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Step = Callable[[F64], F64]
"""One layer on n columns of centred values, q - zero point, held as integers in float64: (K + 1, n), whose last row is
ones for the layer's constants -> (M + 1, n), alike."""

ROWS = 1024
"""Rows computed at once: the working set of a 64-wide layer stays within a core's cache."""


EXACT_FLOAT64 = 1 << 53
"""Integers below it are exact."""


@dataclass(frozen=True)
class TflmModel:
    """A sub-model as TFLite-Micro computes it.

    Attributes:
        model: what the file says.
        steps: the layers, ready to run.
    """

    model: Model
    steps: tuple[Step, ...]

    @staticmethod
    def from_bytes(tflite: bytes, where: object = None) -> TflmModel:
        """Reads a .tflite and prepares its arithmetic.

        Raises:
            InputError: the file is damaged or unsupported, or its arithmetic would overflow int32 on a device.
        """
        return TflmModel.from_model(read_model(tflite, where), where)

    @staticmethod
    def from_model(model: Model, where: object = None) -> TflmModel:
        """Prepares the arithmetic of a sub-model already read.

        Raises:
            InputError: an accumulator could overflow int32, which C++ leaves undefined.
        """
        steps = (
            (_dense if model.bits == 8 else _dense_wide)(
                layer, f"{'model' if where is None else where}: operator {index}"
            )
            if isinstance(layer, FullyConnected)
            else _lookup(layer)
            for index, layer in enumerate(model.layers)
        )
        return TflmModel(model, tuple(steps))

    def invoke(self, q: Codes) -> Codes:
        """(N, K) codes -> (N, M) codes, each row as one ``Invoke`` of the interpreter.

        Raises:
            InputError: ``q`` is not of the model's width or not (N, K).
        """
        kind = code_type(self.model.bits)
        if q.dtype != kind or q.ndim != 2 or q.shape[1] != self.model.input.size:
            raise InputError(f"input {q.dtype} {q.shape}", expected=f"{kind.__name__} (N, {self.model.input.size})")
        out: Codes = np.empty((len(q), self.model.output.size), kind)
        for start in range(0, len(q), ROWS):
            out[start : start + ROWS] = self._chunk(q[start : start + ROWS])
        return out

    def _chunk(self, q: Codes) -> Codes:
        # Features first: then a value per channel meets a long contiguous row, which NumPy vectorizes.
        x = _columns(q.shape[1], len(q))
        np.subtract(q.T, float(self.model.input.zero_point), out=x[:-1])
        for step in self.steps:
            x = step(x)
        x[:-1] += self.model.output.zero_point
        out: Codes = x[:-1].astype(code_type(self.model.bits))
        return out.T


def _columns(values: int, n: int) -> F64:
    """(values + 1, n), to be filled but for the last row, which is ones."""
    x = np.empty((values + 1, n))
    x[-1] = 1
    return x


def activation_table(layer: Unary) -> Codes:
    """(256,) int8 or (65536,) int16: the operator's output for all inputs, from the lowest on."""
    bits = layer.input.bits
    low, high = code_limits(bits)
    q = np.arange(low, high + 1)
    centred = q - layer.input.zero_point
    match layer.operator:
        case "TANH" if bits == 16:
            codes = fixed_point.tanh16(q, float(layer.input.scale))
        case "LOGISTIC" if bits == 16:
            codes = fixed_point.logistic16(q, float(layer.input.scale))
        case "TANH":
            # 1 / 128 a step, zero point 0
            codes = _on_q4(layer.input, centred, fixed_point.tanh, fractional_bits=7)
        case "LOGISTIC":
            # 1 / 256 a step, zero point -128
            codes = _on_q4(layer.input, centred, fixed_point.logistic, fractional_bits=8, offset=-128)
        case "ELU":
            codes = _elu(layer, centred)
        case "RELU":
            codes = _requantize(layer, centred)
            codes = np.maximum(codes, layer.output.zero_point)
        case "RELU6":
            codes = np.clip(q, layer.input.zero_point, min(127, _quantize_bound(6, layer.input)))
        case "QUANTIZE":
            codes = _requantize(layer, centred)
        case "RESHAPE":
            codes = q
    table: Codes = np.clip(codes, low, high).astype(code_type(bits))
    return table


def _on_q4(
    source: Quantized, centred: I64, function: Callable[[I64], I64], fractional_bits: int, offset: int = 0
) -> I64:
    """TFLM's fixed-point activations: the input in Q4.27, the output cut to ``fractional_bits``, the ends saturated."""
    fraction, shift = math.frexp(float(source.scale) * (1 << 27))
    mantissa = math.floor(fraction * (1 << 31) + 0.5)
    # CalculateInputRadius: from here on the input would leave (-15, 15); scales are bounded, so shift is 0 to 56.
    radius = (15 << 27) >> shift
    inside = np.abs(centred) < radius
    scaled = multiply_by_quantized_multiplier(np.where(inside, centred, 0), mantissa, np.where(inside.any(), shift, 0))
    codes = fixed_point.rounding_divide_by_pot(function(scaled), 31 - fractional_bits) + offset
    return np.where(centred <= -radius, -128, np.where(centred >= radius, 127, codes))


def _elu(layer: Unary, centred: I64) -> I64:
    """TFLM fills this table in float32 when the model is loaded, with the C library's expf."""
    x = layer.input.scale * centred.astype(np.float32)
    # NumPy's float32 exp is off by up to 2 ulp; through float64 it is the correctly rounded one.
    exponential = np.exp(np.minimum(x, 0).astype(np.float64)).astype(np.float32)
    y = np.where(x < 0, exponential - np.float32(1), x) * (np.float32(1) / layer.output.scale)
    return _round_half_away(np.clip(y, -1024, 1024)) + layer.output.zero_point


def _requantize(layer: Unary, centred: I64) -> I64:
    multiplier = quantize_multiplier(float(layer.input.scale) / float(layer.output.scale))
    _refuse_overflow(256, multiplier, layer.operator)
    return layer.output.zero_point + multiply_by_quantized_multiplier(centred, multiplier.mantissa, multiplier.shift)


def _lookup(layer: Unary) -> Step:
    table = activation_table(layer).astype(np.float64) - layer.output.zero_point
    first = layer.input.zero_point - code_limits(layer.input.bits)[0]

    def step(x: F64) -> F64:
        y = _columns(len(x) - 1, x.shape[1])
        y[:-1] = table.take((x[:-1] + first).astype(np.intp))
        return y

    return step


def activation_range(layer: FullyConnected) -> tuple[int, int]:
    """``CalculateActivationRangeQuantized``: the lowest and highest output of the fused activation."""
    bounds = {"NONE": (None, None), "RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}[layer.activation]
    low, high = (None if bound is None else _quantize_bound(bound, layer.output) for bound in bounds)
    lowest, highest = code_limits(layer.output.bits)
    return lowest if low is None else max(lowest, low), highest if high is None else min(highest, high)


def _quantize_bound(bound: int, tensor: Quantized) -> int:
    return tensor.zero_point + int(_round_half_away(np.array(bound / tensor.scale, np.float32)))


def output_multipliers(layer: FullyConnected) -> tuple[Multiplier, ...]:
    """One multiplier for all channels, or one each: input scale * weight scale / output scale, rounded as TFLM does."""
    return tuple(
        quantize_multiplier(float(layer.input.scale) * float(scale) / float(layer.output.scale))
        for scale in layer.weight_scale
    )


def release_dependent(model: Model) -> tuple[int, ...]:
    """Indices of the layers whose multiplier is not the same in every TFLM release.

    For per-tensor weights and for RELU, TFLM as of August 2026 and esp-tflite-micro 1.4.0 combine two scales in float32
    before they widen (``GetQuantizedConvolutionMultipler``, ``CalculateReluOpData``); the ``tflite_micro`` wheel of
    October 2026 widens first, as this module does. Outputs can then differ by one step, about once in 100,000. Scales
    whose product is exact in float32 (12 significant bits each), per-channel weights and fused activations avoid it.
    With int16 activations esp-tflite-micro 1.4.0 ignores per-channel scales altogether
    (``kernels/esp_nn/fully_connected.cc`` calls the per-tensor function with a multiplier that nothing has set).
    """
    return tuple(index for index, layer in enumerate(model.layers) if _depends_on_release(layer))


def _depends_on_release(layer: Layer) -> bool:
    if isinstance(layer, FullyConnected):
        if layer.per_channel:
            return layer.input.bits == 16
        narrow = float(layer.input.scale * layer.weight_scale[0]) / float(layer.output.scale)
        return (quantize_multiplier(narrow),) != output_multipliers(layer)
    ratio = float(layer.input.scale) / float(layer.output.scale)
    return layer.operator == "RELU" and ratio != float(layer.input.scale / layer.output.scale)


def _dense(layer: FullyConnected, where: str) -> Step:
    reach = np.abs(np.array([-128, 127]) - layer.input.zero_point).max()
    products = int((np.abs(layer.weight.astype(np.int64)).sum(axis=1) * reach).max())
    bound = products + int(np.abs(layer.bias.astype(np.int64)).max())
    multipliers = output_multipliers(layer)
    for multiplier in multipliers:
        _refuse_overflow(bound, multiplier, where)
    low, high = (limit - layer.output.zero_point for limit in activation_range(layer))
    weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.int64)[:, None]
    mantissa = np.array([[m.mantissa] for m in multipliers])
    shift = np.array([[m.shift] for m in multipliers])

    def in_int64(x: F64) -> F64:
        acc = (weight @ x[:-1]).astype(np.int64) + bias
        y = _columns(*acc.shape)
        np.clip(multiply_by_quantized_multiplier(acc, mantissa, shift), low, high, out=y[:-1])
        return y

    # Everything below is an integer times 2^-(31 + right), and so is every partial sum of the products: as such they
    # stay exact float64s, and the first rounding below 2^22.
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    largest = max(bound << max(m.shift, 0) for m in multipliers) * (1 << 31) + (1 << 30)
    if largest >= EXACT_FLOAT64:
        return in_int64

    first_scale = np.ldexp(mantissa.astype(np.float64), left - 31)
    first = np.concatenate([weight * first_scale, bias * first_scale + 0.5], axis=1)
    # Halves of the second rounding go away from zero; a nudge of 2^-26 turns rint's ties the same way and, since the
    # first result is below 2^22, moves nothing else.
    second_scale = np.ldexp(1 + 2.0**-26, -right)

    def in_float64(x: F64) -> F64:
        y = _columns(len(first), x.shape[1])
        acc = np.matmul(first, x, out=y[:-1])
        np.floor(acc, out=acc)
        acc *= second_scale
        np.rint(acc, out=acc)
        acc.clip(low, high, out=acc)
        return y

    if low < 0 or largest + (1 << 30 + int(right.max())) >= EXACT_FLOAT64:
        return in_float64

    # After a ReLU negative results don't matter, halves always go up, and floor(floor(x) / 2^r + 1/2) is one floor.
    both = np.ldexp(first, -right)
    both[:, -1:] += np.where(right > 0, 0.5, 0.0)

    return _floored(both, low, high)


def _dense_wide(layer: FullyConnected, where: str) -> Step:
    """int16 activations: an int64 accumulator, a mantissa of 15 bits, one rounding."""
    bound = int((np.abs(layer.weight.astype(np.int64)).sum(axis=1) << 15).max()) + int(np.abs(layer.bias).max())
    multipliers = output_multipliers(layer)
    for multiplier in multipliers:
        _refuse_wide(bound, multiplier, where)
    pairs = [reduced(multiplier) for multiplier in multipliers]
    mantissa, shift = (np.array(column)[:, None] for column in zip(*pairs, strict=True))
    low, high = activation_range(layer)
    weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.int64)[:, None]

    def in_int64(x: F64) -> F64:
        acc = (weight @ x[:-1]).astype(np.int64) + bias
        y = _columns(*acc.shape)
        np.clip(rescale_wide(acc, mantissa, shift), low, high, out=y[:-1])
        return y

    if (bound << 15) + (1 << int(shift.max())) >= EXACT_FLOAT64:
        return in_int64
    # An integer below 2^53 times a power of two is exact, and so is the half.
    scale = np.ldexp(mantissa.astype(np.float64), -shift)
    scaled = np.concatenate([weight * scale, bias * scale + 0.5], axis=1)

    return _floored(scaled, low, high)


def _floored(scaled: F64, low: int, high: int) -> Step:
    """A layer whose rounding is one floor: its scales and the half are in the matrix, the bias in its last column."""

    def floored(x: F64) -> F64:
        y = _columns(len(scaled), x.shape[1])
        acc = np.matmul(scaled, x, out=y[:-1])
        np.floor(acc, out=acc)
        acc.clip(low, high, out=acc)
        return y

    return floored


def _refuse_wide(bound: int, multiplier: Multiplier, where: str) -> None:
    mantissa, shift = reduced(multiplier)
    if shift < 8 or bound >= 1 << 47 or (bound * mantissa >> shift) >= INT32_MAX:
        raise InputError(
            "the accumulator or what it is scaled to can overflow, which TFLite-Micro does not guard against",
            where=where,
            expected="scales of input, weights and output that fit together",
            hint="calibrate the output's range anew: its scale is far too small for its inputs",
        )


def _refuse_overflow(bound: int, multiplier: Multiplier, where: str) -> None:
    if max(bound, 1) << max(multiplier.shift, 0) > INT32_MAX:
        raise InputError(
            "the accumulator can overflow int32, which TFLite-Micro does not guard against",
            where=where,
            expected="scales of input, weights and output that fit together",
            hint="calibrate the output's range anew: its scale is far too small for its inputs",
        )


def _round_half_away(x: NDArray[np.float32]) -> I64:
    """``std::round``: to the nearest integer, halves away from zero."""
    whole = np.trunc(x)
    rounded: NDArray[np.float32] = whole + np.sign(x) * (np.abs(x - whole) >= 0.5)
    return rounded.astype(np.int64)
