"""With int16 activations too NumPy equals TFLite-Micro bit for bit: on chains, at roundings, in every code."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import InputError
from quant.runners.fixed_point import INT32_MAX, Multiplier
from quant.runners.flatbuffer import (
    OPERATORS_16,
    FullyConnected,
    FusedActivation,
    Layer,
    Model,
    Quantized,
    Unary,
    UnaryOperator,
    read_model,
)
from quant.runners.tflm import TflmModel, _refuse_wide, release_dependent
from quant.tracks.candidate import Codes
from tests.runners.build import model_object, pack, tflite
from tests.runners.oracle import tflite_micro
from tests.runners.strategies import overflows, scales, seeds

EVERY_CODE = np.arange(-32768, 32768).astype(np.int16)
FIXED = np.float32(2**-15)
UNARY: tuple[UnaryOperator, ...] = ("TANH", "LOGISTIC")


def tensor(size: int, scale: float) -> Quantized:
    return Quantized((1, size), np.float32(scale), 0, 16)


def inputs(size: int, seed: int, rows: int = 48) -> Codes:
    """(rows, size) int16: the corners first, then corners mixed, then anything."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-32768, 32768, (rows, size)).astype(np.int16)
    q[4:12] = rng.choice([-32768, 32767], (8, size))
    q[:4] = np.array([-32768, 32767, 0, -1])[:, None]
    return q


def assert_conforms(layers: list[Layer], q: Codes) -> Codes:
    content = tflite(layers)
    ours, theirs = TflmModel.from_bytes(content).invoke(q), tflite_micro(content, q)
    assert ours.dtype == np.int16
    np.testing.assert_array_equal(ours, theirs)
    return ours


@st.composite
def fully_connected(draw: st.DrawFn, source: Quantized) -> FullyConnected:
    """A dense layer whose outputs spread over int16, or leave it, or hardly move."""
    outputs = draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(seeds))
    extreme = draw(st.booleans())
    weight = (
        rng.choice([-127, 127], (outputs, source.size)) if extreme else rng.integers(-127, 128, (outputs, source.size))
    )
    weight_scale = np.exp2(rng.uniform(-9, -5, outputs if draw(st.booleans()) else 1)).astype(np.float32)
    spread = round(74 * 19000 * math.sqrt(source.size))
    reach = spread * draw(st.sampled_from([1, 1, 1 << 12]))
    bias = rng.integers(-reach, reach, outputs) if draw(st.booleans()) else np.zeros(outputs, np.int64)
    factor = draw(st.sampled_from([1.0, 1.0, 0.1, 30.0, 2.0**-5, 2.0**12, 2.0**25]) | st.floats(0.3, 3.0))
    typical = float(source.scale) * float(weight_scale.max()) * spread / 16384
    target = tensor(outputs, min(max(typical * factor, 2.0**-27), 2.0**27))
    activation = draw(st.sampled_from(get_args(FusedActivation)))
    return FullyConnected(source, target, weight.astype(np.int8), weight_scale, bias, activation)


@st.composite
def chains(draw: st.DrawFn) -> list[Layer]:
    """One to four layers that fit together and that TFLM can run without overflow."""
    current = tensor(draw(st.integers(1, 40)), float(draw(scales(2**-16, 2**-6))))
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 4))):
        function: UnaryOperator = draw(st.sampled_from(UNARY))
        layer: Layer = draw(
            fully_connected(current) | st.just(Unary(function, current, tensor(current.size, float(FIXED))))
        )
        if overflows(layer) or (isinstance(layer, Unary) and current.scale > 2):
            continue
        layers.append(layer)
        current = layer.output
    return layers or [Unary("TANH", tensor(3, 2**-12), tensor(3, 2**-15))]


@settings(max_examples=150, deadline=None)
@given(chains(), seeds)
def test_any_chain(layers: list[Layer], seed: int) -> None:
    assert_conforms(layers, inputs(layers[0].input.size, seed))


@settings(max_examples=100, deadline=None)
@given(scales(2.0**-13, 2.0**0), st.sampled_from(get_args(FusedActivation)), st.booleans(), seeds)
def test_accumulators_at_every_rounding_boundary(
    real: np.float32, activation: FusedActivation, per_channel: bool, seed: int
) -> None:
    """Weights of zero make the bias the accumulator: it is put next to where the output steps, and anywhere else."""
    rng = np.random.default_rng(seed)
    source, target = tensor(1, 2**-9), tensor(256, 2**-9)
    weight_scale = (rng.uniform(0.5, 1, 256 if per_channel else 1) * real).astype(np.float32)
    bias = np.rint((rng.integers(-40000, 40000, 256) + 0.5) / weight_scale.astype(np.float64)).astype(np.int64)
    bias += rng.integers(-2, 3, 256)
    bias = np.where(rng.random(256) < 0.1, rng.integers(-(2**31), 2**31, 256), bias)
    layer = FullyConnected(source, target, np.zeros((256, 1), np.int8), weight_scale, bias, activation)
    if not overflows(layer):
        assert_conforms([layer], np.zeros((1, 1), np.int16))


NEAR_POWERS = (2**-12 * 1.0006, 2**-11 * 0.9995, 2**-12 * 1.0008)
"""Two that TFLM takes for the power of two, and one that it does not."""


@pytest.mark.parametrize("function", UNARY)
@pytest.mark.parametrize("scale", [*(2.0 ** -np.arange(-1, 17)), *NEAR_POWERS, 1.9, 0.37, 0.0123, 3.1e-4, 3.3e-5, 1e-7])
def test_every_code_of_every_activation(function: UnaryOperator, scale: float) -> None:
    layer = Unary(function, tensor(65536, scale), tensor(65536, float(FIXED)))
    out = assert_conforms([layer], EVERY_CODE[None])[0]
    real = EVERY_CODE * np.float64(layer.input.scale)
    exact = np.tanh(real) if function == "TANH" else 0.5 + 0.5 * np.tanh(0.5 * real)
    if scale >= 2**-14:  # finer inputs lose bits of the multiplier, and the field has none
        assert np.abs(out * 2.0**-15 - exact).max() < 5e-4


@pytest.mark.parametrize("width", [1, 64, 250])
def test_sums_beyond_float32(width: int) -> None:
    """Extreme weights and inputs make accumulators beyond 2^24; their last unit is seen through a multiplier of one."""
    rng = np.random.default_rng(width)
    wide = np.where(np.arange(width) < width // 2, 127, -127) + rng.integers(-1, 1, (32, width))
    weight = np.clip(wide, -127, 127).astype(np.int8)
    q = np.full((9, width), 32767, np.int16)
    q[1:, rng.integers(0, width, 4)] -= np.int16(1)
    bias = -weight.astype(np.int64).sum(axis=1) * 32767 + rng.integers(-99, 99, 32)
    layer = FullyConnected(
        tensor(width, 2**-9), tensor(32, 2**-12), weight, np.full(1, 2**-3, np.float32), bias, "NONE"
    )
    out = assert_conforms([layer], q)
    np.testing.assert_array_equal(out[0], bias + weight.astype(np.int64).sum(axis=1) * 32767)


def test_a_product_beyond_float64_is_computed_in_integers() -> None:
    """Biases whose product with the mantissa, 61 bits, is next to where the output steps, on either side."""
    mantissa, shift = 0x5555, 46
    solve = pow(mantissa, -1, 1 << shift)
    bias = np.array([(off + (1 << (shift - 1))) * solve % (1 << shift) for off in (-3, -2, -1, 0, 1, 2)], np.int64)
    weight_scale = np.full(1, mantissa * 2.0**-23, np.float32)
    layer = FullyConnected(tensor(1, 2**-9), tensor(6, 2**14), np.ones((6, 1), np.int8), weight_scale, bias, "NONE")
    out = assert_conforms([layer], np.zeros((1, 1), np.int16))
    exact = [(int(b) * mantissa + (1 << (shift - 1))) >> shift for b in bias]
    assert out[0].tolist() == exact
    assert (np.floor(bias * (mantissa * 2.0**-shift) + 0.5) != exact).any(), "float64 would have done"


def test_a_multiplier_next_to_a_power_of_two() -> None:
    """Its 15 bits are cut, where rounding would make 16 of them."""
    weight_scale = np.full(1, 1 - 2.0**-18, np.float32)
    layer = FullyConnected(
        tensor(1, 2**-9), tensor(1, 2**-9), np.ones((1, 1), np.int8), weight_scale, np.zeros(1, np.int64), "NONE"
    )
    assert assert_conforms([layer], np.array([[32767]], np.int16)).tolist() == [[32766]]


@pytest.mark.parametrize(("scale", "bias"), [(2**-24, 0), (2**-10, 2**47), (2**-20, 2**33)])
def test_overflow_is_refused(scale: float, bias: int) -> None:
    """A shift beyond what TFLM takes, an accumulator beyond 2^47, an output beyond int32."""
    weight = np.full((1, 1), 127, np.int8)
    layer = FullyConnected(
        tensor(1, 2**-9), tensor(1, scale), weight, np.full(1, 2**-4, np.float32), np.full(1, bias, np.int64), "NONE"
    )
    with pytest.raises(InputError, match="can overflow"):
        TflmModel.from_bytes(tflite([layer]))


@pytest.mark.parametrize(
    ("bound", "shift"),
    [(1 << 10, 7), ((1 << 47) - 1, -31), (INT32_MAX - 1, 1)],
    ids=["shift", "accumulator", "output"],
)
def test_each_limit_refuses_by_itself(bound: int, shift: int) -> None:
    """The multiplier is half a power of two; what is given just passes, and one more of what is named does not."""
    _refuse_wide(bound, Multiplier(1 << 30, shift), "here")
    more = (bound, shift + 1) if shift == 7 else (bound + 1, shift)
    with pytest.raises(InputError, match="can overflow"):
        _refuse_wide(more[0], Multiplier(1 << 30, more[1]), "here")


def dense(**changes: Quantized) -> FullyConnected:
    layer = {"source": tensor(2, 2**-9), "target": tensor(3, 2**-9)} | changes
    return FullyConnected(
        layer["source"], layer["target"], np.ones((3, 2), np.int8), np.ones(1, np.float32), np.ones(3, np.int64), "NONE"
    )


@pytest.mark.parametrize(
    ("layers", "what"),
    [
        ([dense(source=Quantized((1, 2), np.float32(1), 3, 16))], "zero point"),
        ([dense(target=Quantized((1, 3), np.float32(1), 0, 8))], "int16 into int8"),
        ([Unary("RELU", tensor(3, 1), tensor(3, 1))], "int16 activations"),
        ([Unary("ELU", tensor(3, 1), tensor(3, 1))], "int16 activations"),
        ([Unary("TANH", tensor(3, 2.5), tensor(3, 2**-15))], "input scale of 2.5"),
        ([Unary("TANH", tensor(3, 1), tensor(3, 2**-7))], "output scale"),
        ([Unary("LOGISTIC", tensor(3, 1), tensor(3, 2**-16))], "output scale"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(layers: list[Layer], what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_model(tflite(layers))


def test_a_bias_of_int32_is_refused() -> None:
    """TFLite-Micro of late takes one, the ESP component reads it as int64."""
    model = model_object([dense()])
    bias = next(t for t in model.subgraphs[0].tensors if t.name == "bias0")
    bias.type = 2
    model.buffers[bias.buffer].data = model.buffers[bias.buffer].data[:12]
    with pytest.raises(InputError, match="bias of type INT32"):
        read_model(pack(model))


def test_weights_with_a_scale_each_depend_on_the_release() -> None:
    one = dense()
    each = FullyConnected(one.input, one.output, one.weight, np.ones(3, np.float32), one.bias, "NONE")
    assert release_dependent(Model(one.input, one.output, (one,))) == ()
    assert release_dependent(Model(one.input, one.output, (each,))) == (0,)


@pytest.mark.parametrize("q", [np.zeros((2, 2), np.int8), np.zeros((2, 3), np.int16), np.zeros(2, np.int16)])
def test_wrong_inputs_are_refused(q: Codes) -> None:
    with pytest.raises(InputError, match=r"input .*"):
        TflmModel.from_bytes(tflite([dense()])).invoke(q)


def test_the_operators_are_those_of_the_kernels() -> None:
    assert ("FULLY_CONNECTED", *UNARY) == OPERATORS_16
