"""NumPy equals TFLite-Micro bit for bit: on generated chains, at every rounding boundary, in every activation table."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.errors import InputError
from quant.runners.fixed_point import quantize_multiplier
from quant.runners.flatbuffer import FullyConnected, FusedActivation, Layer, Model, Quantized, Unary, UnaryOperator
from quant.runners.tflm import TflmModel, output_multipliers, release_dependent
from quant.tracks.candidate import Codes
from tests.runners.build import tflite
from tests.runners.oracle import tflite_micro
from tests.runners.strategies import chains, inputs, overflows, scales, seeds, unary, zero_points

ONE = Quantized((1, 1), np.float32(2**-6), 0)


def assert_conforms(layers: list[Layer], q: Codes) -> Codes:
    """Runs both on the same file and returns what they agree on."""
    content = tflite(layers)
    ours, theirs = TflmModel.from_bytes(content).invoke(q), tflite_micro(content, q)
    np.testing.assert_array_equal(ours, theirs)
    return ours


@settings(max_examples=300, deadline=None)
@given(chains(), seeds)
def test_any_chain(layers: list[Layer], seed: int) -> None:
    assert_conforms(layers, inputs(layers[0].input.size, seed))


@pytest.mark.parametrize("width", [1, 6, 64, 129, 130, 300, 518, 519, 700])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_widths_around_the_bounds_of_exact_floating_point(width: int, per_channel: bool, zero_point: int) -> None:
    """Extreme weights and inputs: 255 * 127 * K crosses 2^22 after K = 129 and 2^24 after K = 518."""
    rng = np.random.default_rng(width)
    outputs = 24
    weight = rng.choice([-127, 127], (outputs, width)).astype(np.int8)
    weight[0], weight[1] = 127, -127
    weight_scale = rng.uniform(1e-3, 2e-2, outputs if per_channel else 1).astype(np.float32)
    source = Quantized((1, width), np.float32(0.013), zero_point)
    target = Quantized((1, outputs), np.float32(0.013 * weight_scale.max() * 127 * np.sqrt(width)), 5)
    bias = rng.integers(-(2**16), 2**16, outputs).astype(np.int32)
    layer = FullyConnected(source, target, weight, weight_scale, bias, "NONE")
    out = assert_conforms([layer], inputs(width, width, rows=200))
    assert len(np.unique(out)) > 25 or width == 1


def test_partial_sums_beyond_float32() -> None:
    """A multiplier of one shows every unit of an accumulator that passed 2^24 on its way back to nothing."""
    width, outputs = 2000, 64
    rng = np.random.default_rng(0)
    wide = np.where(np.arange(width) < width // 2, 127, -127) + rng.integers(-1, 1, (outputs, width))
    weight = np.clip(wide, -127, 127).astype(np.int8)
    source, target = Quantized((1, width), np.float32(2**-4), -128), Quantized((1, outputs), np.float32(2**-8), 0)
    q = np.full((9, width), 127, np.int8)
    q[1:, rng.integers(0, width, 4)] -= np.int8(1)
    bias = (-weight.astype(np.int64).sum(axis=1) * 255 + rng.integers(-99, 99, outputs)).astype(np.int32)
    layer = FullyConnected(source, target, weight, np.full(1, 2**-4, np.float32), bias, "NONE")
    out = assert_conforms([layer], q)
    assert (np.abs(out[0]) < 100).all()
    np.testing.assert_array_equal(out[0], bias + weight.astype(np.int64).sum(axis=1) * 255)


@settings(max_examples=150, deadline=None)
@given(scales(2.0**-22, 2.0**-1), zero_points, st.sampled_from(get_args(FusedActivation)), st.booleans(), seeds)
def test_accumulators_at_every_rounding_boundary(
    real: np.float32, zero_point: int, activation: FusedActivation, per_channel: bool, seed: int
) -> None:
    """Weights of zero make the bias the accumulator: it is put next to where the output steps, and anywhere else."""
    layer = boundary_layer(float(real), zero_point, activation, per_channel, seed)
    if not overflows(layer):
        assert_conforms([layer], np.zeros((1, 1), np.int8))


def boundary_layer(
    real: float, zero_point: int, activation: FusedActivation, per_channel: bool, seed: int
) -> FullyConnected:
    rng = np.random.default_rng(seed)
    steps = rng.integers(-300, 300, 256)
    target_scale = np.float32(2**-9)
    factor = rng.uniform(0.5, 1, 256 if per_channel else 1) * real * float(target_scale) / float(ONE.scale)
    weight_scale = factor.astype(np.float32)
    multiplier = float(ONE.scale) * weight_scale.astype(np.float64) / float(target_scale)
    # Where the result is k + 1/2, give or take two accumulator units and the half unit of the first rounding.
    bias = np.rint((steps + 0.5) / multiplier) + rng.integers(-2, 3, 256)
    bias = np.where(rng.random(256) < 0.1, rng.integers(-(2**30), 2**30, 256), bias)
    bias = np.clip(bias, -(2**21), 2**21) if rng.random() < 0.5 else np.clip(bias, -(2**31) + 1, 2**31 - 1)
    target = Quantized((1, 256), target_scale, zero_point)
    return FullyConnected(ONE, target, np.zeros((256, 1), np.int8), weight_scale, bias.astype(np.int32), activation)


@settings(max_examples=150, deadline=None)
@given(scales(2.0**0, 2.0**7), zero_points, st.sampled_from(get_args(FusedActivation)), seeds)
def test_multipliers_above_one(real: np.float32, zero_point: int, activation: FusedActivation, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight_scale = np.array([real * np.float32(2**-3)])
    bias = rng.integers(-300, 300, 256).astype(np.int32)
    target = Quantized((1, 256), np.float32(2**-9), zero_point)
    layer = FullyConnected(ONE, target, np.ones((256, 1), np.int8), weight_scale, bias, activation)
    assert_conforms([layer], inputs(1, seed, rows=20))


@pytest.mark.parametrize("operator", ["RELU", "QUANTIZE"])
def test_ratios_of_scales_at_a_rounding_boundary(operator: UnaryOperator) -> None:
    """The last bits of the ratio decide; float32 would lose them (and did, for RELU, in older releases)."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, k = rng.integers(1, 128), rng.integers(0, 100)
        scale = np.float32(rng.uniform(0.01, 0.02))
        source = Quantized((1, 256), np.float32(float(scale) * (k + 0.5) / x), 0)
        layer = Unary(operator, source, Quantized((1, 256), scale, 0))
        assert_conforms([layer], np.arange(-128, 128).astype(np.int8)[None])


@settings(max_examples=40, deadline=None)
@given(st.data(), scales(2.0**-28, 2.0**27), zero_points)
@pytest.mark.parametrize("operator", get_args(UnaryOperator))
def test_every_byte_of_every_activation(
    operator: UnaryOperator, data: st.DataObject, scale: np.float32, zero_point: int
) -> None:
    layer = data.draw(unary(Quantized((1, 256), scale, zero_point), (operator,)))
    if not overflows(layer):
        assert_conforms([layer], np.arange(-128, 128).astype(np.int8)[None])


@pytest.mark.parametrize("operator", ["TANH", "LOGISTIC"])
@pytest.mark.parametrize("zero_point", [-128, -3, 0, 127])
def test_activations_of_the_field(operator: UnaryOperator, zero_point: int) -> None:
    """Scales from 1/512 to 1/4, where the curve is neither a line nor a step."""
    target = {"TANH": (1 / 128, 0), "LOGISTIC": (1 / 256, -128)}[operator]
    for scale in np.geomspace(1 / 512, 1 / 4, 60).astype(np.float32):
        source = Quantized((1, 256), scale, zero_point)
        layer = Unary(operator, source, Quantized((1, 256), np.float32(target[0]), target[1]))
        assert_conforms([layer], np.arange(-128, 128).astype(np.int8)[None])


@pytest.mark.parametrize("exponent", np.arange(-33.0, -27.0, 0.25))
def test_the_smallest_multipliers(exponent: float) -> None:
    """Below 2^-32 a multiplier is zero; just above, the largest accumulators still make a step or two."""
    weight_scale = np.full(1, 2.0**exponent, np.float32)
    bias = np.concatenate([[2**31 - 1, -(2**31) + 1], np.linspace(-(2**31) + 1, 2**31 - 1, 254)]).astype(np.int32)
    target = Quantized((1, 256), ONE.scale, 0)
    layer = FullyConnected(ONE, target, np.zeros((256, 1), np.int8), weight_scale, bias, "NONE")
    out = assert_conforms([layer], np.zeros((1, 1), np.int8))
    assert out.any() == (exponent >= -32)


def test_rounding_once_would_be_noticed() -> None:
    """The boundary layers tell the two roundings from one: 0.1 % of them at least come out differently."""
    layer = boundary_layer(2.0**-7, 0, "NONE", True, seed=5)
    multipliers = [m.mantissa * 2.0 ** (m.shift - 31) for m in output_multipliers(layer)]
    once = np.clip(np.floor(layer.bias * np.array(multipliers) + 0.5), -128, 127)
    ours = assert_conforms([layer], np.zeros((1, 1), np.int8))[0]
    assert np.count_nonzero(once != ours) > 2


def test_scale_product_is_widened_before_it_is_multiplied() -> None:
    """Accumulators where a float32 product of the scales, as older releases have it, gives another output."""
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        source = Quantized((1, 1), np.float32(rng.uniform(0.01, 0.02)), 0)
        target = Quantized((1, 256), np.float32(rng.uniform(0.01, 0.02)), 0)
        weight_scale = rng.uniform(1e-5, 2e-5, 1).astype(np.float32)
        wide = float(source.scale) * float(weight_scale[0]) / float(target.scale)
        narrow = float(source.scale * weight_scale[0]) / float(target.scale)
        boundary = np.rint((np.arange(-128, 128) + 0.5) / wide) + rng.integers(-2, 3, 256)
        differ = np.floor(boundary * wide + 0.5) != np.floor(boundary * narrow + 0.5)
        if not differ.any():
            continue
        found += 1
        weight = np.zeros((256, 1), np.int8)
        layer = FullyConnected(source, target, weight, weight_scale, boundary.astype(np.int32), "NONE")
        assert release_dependent(Model(source, target, (layer,))) == (0,)
        assert_conforms([layer], np.zeros((1, 1), np.int8))
    assert found > 5


def test_scales_of_twelve_bits_do_not_depend_on_the_release() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        short = [np.float32(round(x * 4096) / 2.0**18) for x in rng.uniform(0.5, 1, 2)]
        source, target = Quantized((1, 1), short[0], 0), Quantized((1, 1), np.float32(rng.uniform(0.1, 1)), 0)
        weight = np.ones((1, 1), np.int8)
        layer = FullyConnected(source, target, weight, np.array([short[1]]), np.zeros(1, np.int32), "NONE")
        assert release_dependent(Model(source, target, (layer,))) == ()


def test_overflow_is_refused() -> None:
    """C++ would shift the accumulator out of its int32."""
    target = Quantized((1, 1), np.float32(2**-20), 0)
    layer = FullyConnected(
        ONE, target, np.full((1, 1), 127, np.int8), np.ones(1, np.float32), np.full(1, 2**16, np.int32), "NONE"
    )
    with pytest.raises(InputError, match="overflow int32"):
        TflmModel.from_bytes(tflite([layer]))


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 3000])
def test_rows_are_independent(n: int) -> None:
    """A batch gives what its rows give one at a time, wherever the chunks end."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-127, 128, (9, 12)).astype(np.int8)
    source, target = Quantized((1, 12), np.float32(0.02), 3), Quantized((1, 9), np.float32(0.02), -7)
    layer = FullyConnected(source, target, weight, np.full(1, 0.003, np.float32), np.ones(9, np.int32), "RELU")
    model = TflmModel.from_bytes(tflite([layer]))
    q = inputs(12, 1, rows=max(n, 12))[:n]
    whole = model.invoke(q)
    assert whole.shape == (n, 9)
    for row in range(0, n, 97):
        np.testing.assert_array_equal(whole[row : row + 1], model.invoke(q[row : row + 1]))


@pytest.mark.parametrize("q", [np.zeros((2, 3), np.int8), np.zeros((2, 1), np.int16), np.zeros(1, np.int8)])
def test_wrong_inputs_are_refused(q: NDArray[np.int8]) -> None:
    model = TflmModel.from_bytes(tflite([Unary("RESHAPE", ONE, ONE)]))
    with pytest.raises(InputError, match="input"):
        model.invoke(q)


def test_quantize_multiplier() -> None:
    """Mantissa and shift of simple numbers, by hand."""
    assert (quantize_multiplier(0.5).mantissa, quantize_multiplier(0.5).shift) == (1 << 30, 0)
    assert (quantize_multiplier(1.0).mantissa, quantize_multiplier(1.0).shift) == (1 << 30, 1)
    assert (quantize_multiplier(1 - 2**-40).mantissa, quantize_multiplier(1 - 2**-40).shift) == (1 << 30, 1)
    assert (quantize_multiplier(2**-33).mantissa, quantize_multiplier(2**-33).shift) == (0, 0)


def test_which_layers_depend_on_the_release() -> None:
    """RELU of its own, where the ratio of the scales is not a float32; QUANTIZE and per-channel weights never."""
    source, target = Quantized((1, 1), np.float32(0.1), 0), Quantized((1, 1), np.float32(0.3), 0)
    relu, quantize = Unary("RELU", source, target), Unary("QUANTIZE", source, target)
    halved = Unary("RELU", source, Quantized((1, 1), np.float32(source.scale / 2), 0))
    assert release_dependent(Model(source, target, (quantize, relu, halved))) == (1,)
    wide = Quantized((1, 2), np.float32(0.3), 0)
    channels = np.array([0.1, 0.7], np.float32)
    dense = FullyConnected(source, wide, np.ones((2, 1), np.int8), channels, np.zeros(2, np.int32), "NONE")
    assert release_dependent(Model(source, wide, (dense,))) == ()
