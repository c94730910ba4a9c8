"""Hypothesis strategies for INT8 sub-models and their inputs."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.errors import InputError
from quant.runners.flatbuffer import FullyConnected, FusedActivation, Layer, Quantized, Unary, UnaryOperator
from quant.runners.tflm import TflmModel

zero_points = st.sampled_from([-128, -127, -1, 0, 1, 126, 127]) | st.integers(-128, 127)
seeds = st.integers(0, 2**32 - 1)


def scales(low: float, high: float) -> st.SearchStrategy[np.float32]:
    """float32 scales, even in the logarithm, and the powers of two among them."""
    exponents = st.floats(math.log2(low), math.log2(high))
    return (exponents | exponents.map(round)).map(lambda exponent: np.float32(2.0**exponent))


@st.composite
def fully_connected(draw: st.DrawFn, source: Quantized, max_outputs: int = 20) -> FullyConnected:
    """A dense layer whose outputs spread over int8: the output scale follows the accumulator, within a factor of 30."""
    outputs = draw(st.integers(1, max_outputs))
    rng = np.random.default_rng(draw(seeds))
    extreme = draw(st.booleans())
    weight = (
        rng.integers(-127, 128, (outputs, source.size))
        if not extreme
        else rng.choice([-127, 127], (outputs, source.size))
    )
    per_channel = draw(st.booleans())
    weight_scale = np.exp2(rng.uniform(-9, -5, outputs if per_channel else 1)).astype(np.float32)
    spread = round(74 * 74 * math.sqrt(source.size))
    bias = rng.integers(-spread, spread, outputs) if draw(st.booleans()) else np.zeros(outputs, np.int64)
    typical = float(source.scale) * float(weight_scale.max()) * spread / 64
    # Multipliers above one and far below it come from the factor.
    factor = draw(st.sampled_from([1.0, 1.0, 1.0, 0.1, 30.0, 2.0**-9, 2.0**-13, 2.0**20]) | st.floats(0.3, 3.0))
    scale = np.float32(min(max(typical * factor, 2.0**-27), 2.0**27))
    return FullyConnected(
        source,
        Quantized((1, outputs), scale, draw(zero_points)),
        weight.astype(np.int8),
        weight_scale,
        bias.astype(np.int32),
        draw(st.sampled_from(get_args(FusedActivation))),
    )


@st.composite
def unary(draw: st.DrawFn, source: Quantized, names: tuple[UnaryOperator, ...] = get_args(UnaryOperator)) -> Unary:
    """An operator without weights."""
    name = draw(st.sampled_from(names))
    if name in {"TANH", "LOGISTIC"}:
        fixed, zero_point = {"TANH": (1 / 128, 0), "LOGISTIC": (1 / 256, -128)}[name]
        return Unary(name, source, Quantized(source.shape, np.float32(fixed), zero_point))
    if name in {"RELU6", "RESHAPE"}:
        return Unary(name, source, source)
    factor = draw(scales(2**-4, 2**4) | st.just(np.float32(1)))
    scale = np.float32(min(max(float(source.scale * factor), 2.0**-27), 2.0**27))
    return Unary(name, source, Quantized(source.shape, scale, draw(zero_points)))


@st.composite
def quantized(draw: st.DrawFn, max_size: int = 40) -> Quantized:
    """An input tensor with a scale of the field, or far off it."""
    scale = draw(scales(2**-10, 2**0) | scales(2**-20, 2**20))
    return Quantized((1, draw(st.integers(1, max_size))), scale, draw(zero_points))


@st.composite
def chains(draw: st.DrawFn, max_layers: int = 4) -> list[Layer]:
    """One to four layers of any kind that fit together and that TFLM can run without overflow."""
    current = draw(quantized())
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, max_layers))):
        layer: Layer = draw(fully_connected(current) | unary(current))
        if overflows(layer):
            continue
        layers.append(layer)
        current = layer.output
    return layers or [Unary("RESHAPE", current, current)]


def overflows(layer: Layer) -> bool:
    """Whether the runner refuses the layer because C++ would overflow."""
    from quant.runners.flatbuffer import Model

    try:
        TflmModel.from_model(Model(layer.input, layer.output, (layer,)))
    except InputError:
        return True
    return False


def inputs(size: int, seed: int, rows: int = 64) -> NDArray[np.int8]:
    """(rows, size) int8: the four corners first, then corners mixed, then anything."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-128, 128, (rows, size)).astype(np.int8)
    q[4:12] = rng.choice([-128, 127], (8, size))
    q[:4] = np.array([-128, 127, 0, -1])[:, None]
    return q
