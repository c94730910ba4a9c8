"""Ranges, folding and equalization: what is rewritten stays the same function, and every range holds what it must."""

from __future__ import annotations

import decimal
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.policy import Box, Dense, Discrete, Observations, Policy
from quant.policy.policy import pool
from quant.tracks.candidate import Affine
from quant.tracks.plan import (
    FIXED,
    FUSED,
    PEER_RANGE,
    Choice,
    Interval,
    Plan,
    Range,
    Rewriting,
    calibrate,
    equalize,
    fake_quantize_weight,
    make_plan,
    needs_short_scale,
    short,
    simulate,
)
from tests.tracks import strategies

reals = st.floats(-1e4, 1e4)
thorough = settings(max_examples=150, deadline=None)


def choose(policy: Policy, margin: float = 0.1, exponent: float = 0.0, share: float = 1.0) -> Choice:
    return Choice(margin, Rewriting(exponent), (share,) * len(policy.encoder), (share,) * len(policy.head))


def plan_of(policy: Policy, seen: Observations, margin: float = 0.1, exponent: float = 0.0) -> Plan:
    equal = equalize(policy, seen, exponent)
    return make_plan(calibrate(equal, seen), choose(policy, margin, exponent))


def run(layers: Sequence[Dense], x: F32) -> F32:
    for layer in layers:
        x = layer(x)
    return x


def folded_forward(plan: Plan, seen: Observations) -> F32:
    """The plan's float layers on folded features, nothing rounded."""
    embeddings = np.zeros((*seen.mask.shape, plan.policy.embedding_size), np.float32)
    embeddings[seen.mask] = run(plan.encoder, plan.fold_peers(seen.peers[seen.mask]))
    z = pool(embeddings, seen.mask, plan.policy.pooling)
    return run(plan.head, np.concatenate([z, plan.fold_ego(seen.ego)], axis=1))


def assert_same_function(one: F32, other: F32) -> None:
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4 * max(1.0, float(np.abs(other).max())))


def assert_zero_is_a_step(made: Range) -> None:
    assert made.scale > 0
    zero = -made.low / made.scale
    assert zero == pytest.approx(round(zero), abs=1e-6) and 0 <= round(zero) <= 255


@given(low=reals, high=reals)
@thorough
def test_a_range_around_has_zero_as_a_step_and_misses_at_most_half_a_step(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    made = Range.around(low, high)
    assert_zero_is_a_step(made)
    assert made.low <= min(low, 0) + 0.501 * made.scale
    assert made.high >= max(high, 0) - 0.501 * made.scale
    assert made.high - made.low <= max(max(high, 0) - min(low, 0), 1e-3) * (1 + 1e-9)


@given(low=reals, high=reals)
@thorough
def test_a_covering_range_holds_both_bounds_and_wastes_little(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    made = Range.covering(low, high)
    assert_zero_is_a_step(made)
    low, high = min(low, 0.0), max(high, 0.0)
    slack = 1e-9 * max(-low, high, 1)
    assert made.low <= low + slack and made.high >= high - slack
    # The narrowest: no other zero point covers both bounds with a smaller step.
    for other in range(256):
        step = made.scale * (1 - 1e-6)
        assert -other * step > low or (255 - other) * step < high or high - low < 1e-3


@pytest.mark.parametrize(
    ("bounds", "ends"),
    [
        ((0, 1), (0, 1)),
        ((-1, 0), (-1, 0)),
        ((-1, 2), (-1, 2)),
        ((0.5, 1), (0, 1)),
        ((-3, -1), (-3, 0)),
        ((0, 0), (0, 1e-3)),
    ],
)
def test_bounds_that_lie_on_steps_are_the_ends(bounds: tuple[float, float], ends: tuple[float, float]) -> None:
    made = Range.covering(*bounds)
    assert (made.low, made.high) == pytest.approx(ends)


@given(low=st.floats(-100, 0), width=st.floats(0.01, 100), x=st.floats(-300, 300, width=32))
@thorough
def test_fake_quantization_is_the_nearest_step_or_the_end(low: float, width: float, x: float) -> None:
    own = Range.around(low, low + width)
    rounded = float(own.fake_quantize(np.array([x], np.float32))[0])
    nearest = min(max(x, own.low), own.high)
    assert abs(rounded - nearest) <= own.scale / 2 * 1.001 + 1e-5
    step = (rounded - own.low) / own.scale
    assert step == pytest.approx(round(step), abs=1e-2)


@given(x=hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-50, 50, width=32)))
@thorough
def test_an_interval_holds_its_columns(x: F32) -> None:
    made = Interval.of(x, 0.0)
    assert (made.low <= x).all() and (x <= made.high).all()
    assert (made.width > 0).all()
    wide = Interval.of(x, 0.2)
    np.testing.assert_allclose(wide.width, made.width * np.float32(1.4), rtol=1e-2, atol=1e-4)
    assert (wide.low < made.low).all() and (wide.high > made.high).all()


@given(value=st.floats(-1e6, 1e6, width=32))
@thorough
def test_a_feature_that_never_moves_still_has_a_step(value: float) -> None:
    made = Interval.of(np.full((5, 1), value, np.float32), 0.0)
    affine = made.affine()
    assert np.isfinite(affine.gain).all() and np.isfinite(affine.offset).all() and (affine.gain > 0).all()
    # Not to be moved by float32's own rounding of value * gain + offset.
    assert abs(int(affine.quantize(np.array([[value]], np.float32))[0, 0]) - -128) <= 1


def test_no_peers_at_all_give_a_unit_interval() -> None:
    made = Interval.of(np.zeros((0, 3), np.float32), 0.1)
    np.testing.assert_array_equal(made.width, 1)


@given(
    low=hnp.arrays(np.float32, 3, elements=st.floats(-10, 10, width=32)),
    width=hnp.arrays(np.float32, 3, elements=st.floats(0.125, 10, width=32)),
)
@thorough
def test_an_interval_puts_its_ends_at_the_ends_of_int8(low: F32, width: F32) -> None:
    made = Interval(low, low + width)
    ends = made.affine().quantize(np.stack([made.low, made.high]))
    assert (ends[0] == -128).all() and (ends[1] >= 126).all()
    beyond = made.affine().quantize(np.stack([made.low - 100, made.high + 100]))
    assert (beyond[0] == -128).all() and (beyond[1] == 127).all()


def scalar_quantize(x: np.float32, gain: np.float32, offset: np.float32) -> int:
    """One feature as C does it: a float32 product, a float32 sum, half to even, saturation."""
    with np.errstate(over="ignore"):
        product = np.float32(x * gain)
        total = np.float32(product + offset)
    if np.isinf(total):
        return 127 if total > 0 else -128
    exact = decimal.Decimal(float(total)).to_integral_value(decimal.ROUND_HALF_EVEN)
    return max(-128, min(127, int(exact)))


floats32 = st.floats(-1e6, 1e6, width=32)


@given(
    x=hnp.arrays(np.float32, (4, 3), elements=floats32 | st.integers(-600, 600).map(lambda i: i / 4)),
    gain=hnp.arrays(np.float32, 3, elements=st.floats(2**-7, 2**20, width=32) | st.sampled_from([1.0, 2.0])),
    offset=hnp.arrays(np.float32, 3, elements=floats32 | st.integers(-256, 256).map(lambda i: i / 2)),
)
@settings(max_examples=300, deadline=None)
def test_quantization_agrees_with_a_scalar_reference(x: F32, gain: F32, offset: F32) -> None:
    codes = Affine(gain, offset).quantize(x)
    expected = [[scalar_quantize(x[i, j], gain[j], offset[j]) for j in range(3)] for i in range(4)]
    assert codes.dtype == np.int8
    assert codes.tolist() == expected


def test_halves_go_to_even_and_ends_saturate() -> None:
    one = Affine(np.ones(1, np.float32), np.zeros(1, np.float32))
    x = np.array([[-2.5], [-1.5], [-0.5], [0.5], [1.5], [2.5], [127.4], [127.6], [1e30], [-128.6], [-1e30]], np.float32)
    assert one.quantize(x)[:, 0].tolist() == [-2, -2, 0, 0, 2, 2, 127, 127, 127, -128, -128]


def test_product_and_sum_round_apart() -> None:
    """A fused multiply-add would see 0.5 + 2^-24 and go to 1."""
    gain, offset = np.float32(1 + 2**-12), np.float32(-1 - 2**-11)
    x = np.float32(1 + 2**-12)
    assert float(x) * float(gain) + float(offset) == 2**-24
    assert Affine(np.array([gain]), np.array([offset])).quantize(np.array([[x]]))[0, 0] == 0
    # Scaled up until the difference is whole steps: 2^-24 * 2^24 = 1 when fused, 0 when not.
    scaled = Affine(np.array([gain * np.float32(2**24)]), np.array([offset * np.float32(2**24)]))
    assert scaled.quantize(np.array([[x]]))[0, 0] == 0


@given(q=hnp.arrays(np.int8, (5, 2)), seed=strategies.seeds)
@thorough
def test_dequantization_is_undone_by_quantization(q: NDArray[np.int8], seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = Interval.of(rng.normal(size=(10, 2)).astype(np.float32), 0.1).affine()
    np.testing.assert_array_equal(affine.quantize(affine.dequantize(q)), q)


@given(policy=strategies.policies(), seed=st.integers(0, 99), margin=st.sampled_from([0.0, 0.1, 0.2]))
@settings(max_examples=120, deadline=None)
def test_folded_layers_are_the_policy(policy: Policy, seed: int, margin: float) -> None:
    seen = strategies.frames_for(policy, 40, seed)
    plan = plan_of(policy, seen, margin)
    assert_same_function(folded_forward(plan, seen), policy.forward(seen).values)


@given(policy=strategies.policies(), seed=st.integers(0, 99), exponent=st.sampled_from([0.25, 0.5, 0.75, 1.0]))
@settings(max_examples=120, deadline=None)
def test_equalization_keeps_the_function_also_on_other_frames(policy: Policy, seed: int, exponent: float) -> None:
    equal = equalize(policy, strategies.frames_for(policy, 40, seed), exponent)
    for other in (seed, seed + 1000):
        seen = strategies.frames_for(policy, 40, other)
        assert_same_function(equal.forward(seen).values, policy.forward(seen).values)
    if exponent == 0.5:
        seen = strategies.frames_for(policy, 40, seed)
        assert_same_function(folded_forward(plan_of(policy, seen, 0.1, exponent), seen), policy.forward(seen).values)


def test_equalization_draws_the_ranges_together() -> None:
    policy = strategies.policy(encoder=((16, "relu"), (8, "linear")), hidden=((16, "relu"),))
    seen = strategies.frames_for(policy, 300)
    ratios = []
    for exponent in (0.0, 0.5, 1.0):
        equal = equalize(policy, seen, exponent)
        hidden = equal.encoder[0](seen.peers[seen.mask])
        reach = np.abs(hidden).max(axis=0)
        alive = reach > 0.02 * reach.max()
        ratios.append(float(reach[alive].max() / reach[alive].min()))
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[2] == pytest.approx(1, abs=0.05)


def test_equalization_without_a_peer_changes_nothing() -> None:
    policy = strategies.policy()
    seen = strategies.frames(20)
    assert equalize(policy, Observations(seen.ego, seen.peers, np.zeros_like(seen.mask)), 0.5) is policy


@given(policy=strategies.policies(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_tensor_of_a_plan_has_a_range_that_fits_it(policy: Policy, seed: int) -> None:
    seen = strategies.frames_for(policy, 40, seed)
    plan = plan_of(policy, seen)
    assert len(plan.encoder_ranges) == len(policy.encoder) and len(plan.head_ranges) == len(policy.head)
    for layers, ranges in ((plan.encoder, plan.encoder_ranges), (plan.head, plan.head_ranges)):
        for layer, own in zip(layers, ranges, strict=True):
            assert (own.before is None) == (layer.activation in FUSED)
            assert own.after == FIXED.get(layer.activation, own.after)
            assert own.after.scale > 0 and own.after.low <= 0 <= own.after.high + 1e-12
    if policy.pooling != "sum":
        assert plan.z == plan.encoder_ranges[-1].after
    if isinstance(policy.action_space, Box):
        last = plan.head_ranges[-1].after
        assert last == Range.covering(min(policy.action_space.low), max(policy.action_space.high))
    folded = plan.fold_peers(np.outer(np.array([-1e5, 0, 1e5], np.float32), np.ones(policy.peer_size, np.float32)))
    assert folded.min() >= PEER_RANGE.low and folded.max() <= PEER_RANGE.high
    ego = plan.fold_ego(np.outer(np.array([-1e5, 1e5], np.float32), np.ones(policy.ego_size, np.float32)))
    np.testing.assert_allclose(ego, np.tile([[plan.z.low], [plan.z.high]], policy.ego_size), rtol=1e-5, atol=1e-6)


def test_kept_shares_narrow_the_ranges_they_name() -> None:
    policy = strategies.policy(space=Discrete(4))
    calibration = calibrate(policy, strategies.frames(200))
    whole = make_plan(calibration, Choice(0.1, Rewriting(), (1.0, 1.0), (1.0, 1.0)))
    half = make_plan(calibration, Choice(0.1, Rewriting(), (0.5, 1.0), (1.0, 0.5)))
    assert half.encoder_ranges[0].after.high == pytest.approx(whole.encoder_ranges[0].after.high / 2, rel=1e-2)
    assert half.encoder_ranges[1] == whole.encoder_ranges[1]
    assert half.head_ranges[0] == whole.head_ranges[0]
    assert half.head_ranges[1].after.scale == pytest.approx(whole.head_ranges[1].after.scale / 2, rel=1e-2)


@given(weight=hnp.arrays(np.float32, (3, 5), elements=st.floats(-3, 3, width=32)))
@thorough
def test_weights_have_127_steps_a_channel(weight: F32) -> None:
    layer = Dense(weight, np.zeros(3, np.float32), "linear")
    rounded = fake_quantize_weight(layer, PEER_RANGE)
    peak = np.abs(weight).max(axis=1, keepdims=True)
    assert (np.abs(rounded - weight) <= peak / 127 / 2 * 1.001 + 1e-12).all()
    np.testing.assert_allclose(np.abs(rounded).max(axis=1), peak[:, 0], rtol=1e-5, atol=1e-10)


@given(scale=st.floats(2.0**-60, 2.0**60))
@thorough
def test_short_scales_multiply_exactly_and_are_hardly_wider(scale: float) -> None:
    found = short(scale)
    assert scale <= found <= scale * (1 + 2.0**-11)
    assert float(np.float32(found) * np.float32(short(0.3))) == found * short(0.3)


def test_a_power_of_two_needs_no_short_scale() -> None:
    layer = Dense(np.array([[0.3, -0.7]], np.float32), np.zeros(1, np.float32), "linear")
    assert not needs_short_scale(layer, FIXED["tanh"])
    assert needs_short_scale(layer, PEER_RANGE)


@given(policy=strategies.policies())
@settings(max_examples=40, deadline=None)
def test_a_simulated_decision_lies_on_the_steps_of_the_output(policy: Policy) -> None:
    seen = strategies.frames_for(policy, 30)
    plan = plan_of(policy, seen)
    own = plan.head_ranges[-1].after
    values = simulate(plan, seen)
    assert values.shape == (30, policy.action_space.width) and np.isfinite(values).all()
    steps = (values - own.low) / own.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)
    # Of great values float32 has none as near as 1e-4.
    rounding = 1e-4 + float(np.spacing(np.abs(values).max()))
    assert values.min() >= own.low - rounding and values.max() <= own.high + rounding


def test_a_policy_that_never_meets_a_peer_can_be_planned() -> None:
    policy = strategies.policy()
    seen = strategies.frames(50)
    alone = Observations(seen.ego, seen.peers, np.zeros_like(seen.mask))
    plan = plan_of(policy, alone)
    assert_same_function(folded_forward(plan, alone), policy.forward(alone).values)
    assert np.isfinite(simulate(plan, seen)).all()
