"""Second-order rounding and the track that uses it: what it gains, what it never loses, and that it repeats."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.dataset import Dataset
from quant.errors import InputError
from quant.policy import Activation, Box, Dense, Discrete, Observations, Policy, Pooling
from quant.policy.policy import ACTIVATIONS
from quant.runners import Int8Runner, TflmModel, parity, read_model, release_dependent
from quant.tracks import gptq, ptq
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.flatbuffer_writer import write_model
from quant.tracks.integers import IntegerLayer, nearest_layers
from quant.tracks.job import Job
from quant.tracks.objective import Frames, Objective
from quant.tracks.plan import PEER_RANGE, Choice, LayerRanges, Plan, Range, Rewriting, calibrate, make_plan, simulate
from quant.tracks.ptq import range_cost
from quant.tracks.qat import QatOptions, QatResult
from quant.tracks.registry import DEFAULT_TRACKS, TRACKS, parse_tracks
from quant.tracks.rounding import correct_bias, descend, measure, round_columns, round_layer
from quant.tracks.sensitivity import SLOPES, sensitivity
from tests.tracks import strategies
from tests.tracks.conftest import Exported
from tests.tracks.test_search import without_held_out

POLICY = strategies.policy(2, ego=6)
DATASET = strategies.dataset_of(POLICY, 400)
F64 = NDArray[np.float64]


def infer(candidate: Candidate, frames: Observations) -> NDArray[np.float32]:
    return Int8Runner(candidate).values(frames)


def error_of(policy: Policy, dataset: Dataset, candidate: Candidate) -> float:
    frames = Frames.of(dataset)
    return Objective.of(policy, frames)(infer(candidate, frames.all))


def correlated(seed: int, n: int, width: int) -> F64:
    """(n, width) rows of a few factors and a little of their own."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(n, 3)) @ rng.normal(size=(3, width)) + 0.1 * rng.normal(size=(n, width)) + 1)


def test_the_writer_gives_the_converters_integers_in_fewer_bytes(each: Exported) -> None:
    plan = each.plan
    for layers, ranges, source, converted in (
        (plan.encoder, plan.encoder_ranges, PEER_RANGE, each.candidate.peer_encoder.tflite),
        (plan.head, plan.head_ranges, plan.z, each.candidate.policy_head.tflite),
    ):
        written = write_model(nearest_layers(layers, ranges, source))
        ours, theirs = read_model(written), read_model(converted)
        assert len(written) < len(converted)
        assert ours.operators == theirs.operators and not release_dependent(ours)
        for one, same in zip(ours.layers, theirs.layers, strict=True):
            np.testing.assert_equal(vars(one), vars(same))
        q = np.random.default_rng(0).integers(-128, 128, (300, ours.input.size)).astype(np.int8)
        np.testing.assert_array_equal(TflmModel.from_model(ours).invoke(q), TflmModel.from_model(theirs).invoke(q))


def test_every_engine_runs_what_the_writer_wrote(each: Exported) -> None:
    candidate = gptq.Rounded.nearest(each.plan).candidate(each.dataset)
    assert parity(candidate, each.frames[:40]).conforms


def test_a_bias_beyond_int32_widens_its_units_step() -> None:
    weight = np.array([[1e-9, -1e-9], [0.5, 0.25]], np.float32)
    layer = Dense(weight, np.array([3.0, 0.1], np.float32), "relu")
    made = IntegerLayer.nearest(layer, PEER_RANGE, LayerRanges(None, Range.around(0, 4)))
    assert 2**28 < made.bias[0] <= 2**30 and np.abs(made.weight[1]).max() == 127
    np.testing.assert_allclose(made(np.zeros((1, 2), np.float32))[0], [3.0, 0.1], atol=4 / 255)
    q = np.full((1, 2), -128, np.int8)
    assert TflmModel.from_bytes(write_model([made])).invoke(q)[0, 0] == round(3 / 4 * 255) - 128


@given(seed=strategies.seeds, width=st.integers(2, 24), outputs=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_second_order_beats_rounding_to_nearest_on_a_layer(seed: int, width: int, outputs: int) -> None:
    x = correlated(seed, 200, width)
    weight = np.random.default_rng(seed + 1).normal(size=(outputs, width))
    target = x @ weight.T
    scale = np.abs(weight).max(axis=1) / 7
    errors = measure(x, target, np.ones((len(x), 1)), weight, 0.01, matched=False)
    nearest = np.rint(weight / scale[:, None])
    gptq_steps = round_columns(errors, scale)
    settled = descend(errors, scale, gptq_steps)
    worst, better, best = (errors.of(steps * scale[:, None]) for steps in (nearest, gptq_steps, settled))
    assert better.sum() <= 1.02 * worst.sum() and (best <= better + 1e-12).all()
    assert (np.abs(settled) <= 127).all() and (settled == np.rint(settled)).all()
    if width > 8 and outputs > 3:
        assert better.sum() < 0.8 * worst.sum() and best.sum() < 0.5 * worst.sum()


def test_single_steps_find_what_trying_all_neighbours_finds() -> None:
    x = correlated(3, 100, 4)
    weight = np.random.default_rng(0).normal(size=(2, 4))
    errors = measure(x, x @ weight.T, np.ones((100, 1)), weight, 0.01, matched=False)
    scale = np.full(2, 0.5)
    settled = descend(errors, scale, np.zeros((2, 4)))
    for column in range(4):
        for step in (-1, 1):
            other = settled.copy()
            other[:, column] += step
            assert (errors.of(other * 0.5) >= errors.of(settled * 0.5) - 1e-9).all()


def test_the_error_is_that_of_the_outputs() -> None:
    """Without damping: the weighted squared error of the outputs with the best bias, up to what no weights can mend."""
    x, rng = correlated(1, 300, 5), np.random.default_rng(2)
    weight, importance = rng.normal(size=(3, 5)), rng.uniform(0.1, 2, (300, 3)) * np.exp(x[:, :3])
    target = x @ weight.T + rng.normal(size=(300, 3)) + 0.3 * x[:, :3]
    share = importance / importance.sum(axis=0)
    errors = measure(x, target, importance, weight, 0.0, matched=True)

    def outputs_error(tried: F64) -> F64:
        off = target - x @ tried.T - errors.bias(tried)
        np.testing.assert_allclose((share * off).sum(axis=0), 0, atol=1e-9)
        return np.asarray((share * off**2).sum(axis=0))

    ones, others = (errors.best + rng.normal(size=(3, 5)) for _ in range(2))
    np.testing.assert_allclose(
        outputs_error(ones) - outputs_error(others), errors.of(ones) - errors.of(others), rtol=0.02, atol=2e-3
    )
    assert (outputs_error(errors.best) < outputs_error(weight)).all()


def test_a_corrected_bias_takes_the_mean_error_away() -> None:
    rng = np.random.default_rng(0)
    layer = Dense(rng.normal(size=(6, 9)).astype(np.float32), rng.normal(size=6).astype(np.float32), "linear")
    own = LayerRanges(None, Range.around(-30, 30))
    x = rng.uniform(0, 1, (400, 9)).astype(np.float32)
    target = np.asarray((x + 0.1) @ layer.weight.T + layer.bias, np.float32)
    present = IntegerLayer.nearest(layer, PEER_RANGE, own)
    corrected = correct_bias(present, layer, x, target, np.ones((400, 1), np.float32))
    before, after = (np.abs((made(x) - target).mean(axis=0)) for made in (present, corrected))
    assert after.max() < 0.02 < before.max()
    np.testing.assert_array_equal(present.weight, corrected.weight)


def test_a_layer_makes_up_for_inputs_rounded_before_it() -> None:
    rng = np.random.default_rng(4)
    exact = correlated(5, 500, 12).astype(np.float32)
    x = exact * rng.uniform(0.8, 1.2, 12).astype(np.float32)
    layer = Dense(rng.normal(size=(8, 12)).astype(np.float32), np.zeros(8, np.float32), "linear")
    target, own = exact @ layer.weight.T, LayerRanges(None, Range.around(-40, 40))
    ones = np.ones((len(x), 1), np.float32)

    def left(matched: bool) -> float:
        made = round_layer(layer, PEER_RANGE, own, x, target, ones, 0.01, matched=matched)
        return float(np.mean((x @ (made.weight * made.scale[:, None]).T + made.bias * 0 - target) ** 2))

    assert left(True) < 0.5 * left(False)


@pytest.mark.parametrize("activation", SLOPES)
def test_slopes_are_the_activations_derivatives(activation: Activation) -> None:
    x = np.array([-7.3, -1.2, -0.1, 0.2, 1.7, 5.5, 6.4], np.float32)
    own = ACTIVATIONS[activation]
    slope = (own(x + np.float32(1e-2)) - own(x - np.float32(1e-2))) / np.float32(2e-2)
    np.testing.assert_allclose(SLOPES[activation](x), slope, atol=2e-3)


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
@pytest.mark.parametrize("space", [Box((-9.0, -9.0), (9.0, 9.0)), Discrete(3)], ids=["box", "discrete"])
def test_importance_is_the_squared_gradient_of_the_decision(pooling: Pooling, space: Box | Discrete) -> None:
    """Against finite differences of what the decision error is the second order of."""
    policy = strategies.policy(5, encoder=((5, "tanh"),), hidden=((4, "sigmoid"),), pooling=pooling, space=space)
    frames = strategies.frames_for(policy, 8)
    found = sensitivity(policy, frames)

    def moved(part: str, unit: int, step: float) -> NDArray[np.float32]:
        layers = getattr(policy, part)
        bias = layers[0].bias.copy()
        bias[unit] += np.float32(step)
        changed: Any = {part: (replace(layers[0], bias=bias), *layers[1:])}
        return replace(policy, **changed).forward(frames).values

    gradient = (moved("head", 1, 0.05) - moved("head", 1, -0.05)).astype(np.float64) / 0.1
    if isinstance(space, Discrete):
        values = policy.forward(frames).values.astype(np.float64)
        p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
        expected = (p * gradient**2).sum(axis=1) - (p * gradient).sum(axis=1) ** 2
    else:
        expected = (gradient**2).sum(axis=1)
    own = found.head_importance[0][:, 1]
    np.testing.assert_allclose(own - 0.01, expected / expected.mean(), rtol=0.05, atol=0.02)
    single = frames.counts == 1
    if single.any():
        peer = (moved("encoder", 2, 0.05) - moved("encoder", 2, -0.05)).astype(np.float64) / 0.1
        which = np.flatnonzero(single[np.nonzero(frames.mask)[0]])
        if isinstance(space, Box) and len(which) > 1:
            ratio = found.encoder_importance[0][which, 2] - 0.01
            wanted = (peer[single] ** 2).sum(axis=1)
            np.testing.assert_allclose(ratio / ratio.sum(), wanted / wanted.sum(), rtol=0.05, atol=0.02)


@given(policy=strategies.policies(), seed=st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_never_worse_than_ptq_on_the_frames_it_is_chosen_on(policy: Policy, seed: int) -> None:
    dataset = strategies.dataset_of(policy, 120, seed)
    made = gptq.run_gptq(policy, dataset, infer)
    plan, _ = ptq.find_plan(policy, dataset)
    own, plain = error_of(policy, dataset, made), error_of(policy, dataset, export("ptq", plan, dataset, []))
    assert own <= plain
    assert f"error {own:.6g}" in next(line for line in made.log if line.startswith("kept"))
    assert parity(made, Frames.of(dataset).all[:20]).conforms


def plans() -> tuple[Plan, Plan]:
    """Two that differ in the ranges of features."""
    frames = Frames.of(DATASET)
    calibration = calibrate(POLICY, frames.all, frames.features)
    shares = (1.0,) * len(POLICY.encoder), (1.0,) * len(POLICY.head)
    one, other = (make_plan(calibration, Choice(margin, Rewriting(0.0), *shares)) for margin in (0.1, 0.2))
    return one, other


def test_a_layer_is_changed_only_where_that_lowers_the_error() -> None:
    frames, start = Frames.of(DATASET).all[:60], gptq.Rounded.nearest(plans()[0])
    known = sensitivity(POLICY, frames)
    kept, error, log = gptq.round_all(start, 1.0, lambda tried: 1.0, known, frames)
    assert kept is start and error == 1.0 and all("rounded to nearest" in line for line in log)
    tried: list[gptq.Rounded] = []

    def third_is_best(one: gptq.Rounded) -> float:
        tried.append(one)
        return 0.5 if len(tried) == 3 else 0.6 + len(tried) / 1000

    kept, error, log = gptq.round_all(start, 1.0, third_is_best, known, frames)
    assert kept is tried[2] and error == 0.5
    assert log[0] == f"encoder 0 {gptq.WAYS[2].name}: error 0.5"
    assert all("rounded to nearest: error 0.5" in line for line in log[1:])
    # Every way begins at what the layers before have, not at what was tried before.
    assert len(tried) == len(gptq.WAYS) * (len(POLICY.encoder) + len(POLICY.head))
    assert tried[4].encoder[0] is not tried[2].encoder[0] and tried[5].encoder[0] is tried[2].encoder[0]


@pytest.mark.parametrize("better", [0, 1])
def test_of_several_starts_the_one_that_ends_best_is_kept(better: int) -> None:
    both = plans()
    gain = both[better].peer_affine().gain

    def scripted(candidate: Candidate, frames: Observations) -> NDArray[np.float32]:
        off = 0.0 if np.array_equal(candidate.peer_input.gain, gain) else 0.1
        values = POLICY.forward(frames).values
        return np.asarray(np.where(values > 0.5, values - off, values + off), np.float32)

    starts = [("one", both[0]), ("other", both[1])]
    kept, log = gptq.best_of("some", starts, POLICY, DATASET, scripted, lambda done, total: None)
    assert kept.plan is both[better] and log[-1] == f"kept: {('one', 'other')[better]}, error 0"


@pytest.fixture(scope="module")
def made() -> Candidate:
    return gptq.run_gptq(POLICY, DATASET, infer)


def test_the_track_repeats_to_the_byte_and_never_looks_at_held_out_frames(made: Candidate) -> None:
    again = gptq.run_gptq(POLICY, without_held_out(DATASET), infer)
    assert made.hashes == again.hashes and made.log == again.log
    assert made.track == "ptq-gptq"


def test_the_track_is_better_and_smaller_than_ptq(made: Candidate) -> None:
    plain = ptq.run_ptq(POLICY, DATASET)
    assert error_of(POLICY, DATASET, made) < 0.9 * error_of(POLICY, DATASET, plain)
    for part in ("peer_encoder", "policy_head"):
        assert len(getattr(made, part).tflite) < len(getattr(plain, part).tflite)


def test_margins_are_fitted_without_clipping_what_was_seen() -> None:
    made_on = Frames.of(DATASET)
    frames, found, error = made_on.all, ptq.search(POLICY, made_on), Objective.of(POLICY, made_on)
    make = partial(make_plan, found.calibration, found.choice)
    plan, log = gptq.fit_features(found, error, made_on, make)

    def alone(tried: Plan) -> float:
        return error(simulate(tried, frames, round_weights=False))

    assert alone(plan) < alone(make())
    assert len(log) > 1 and log[-1].endswith(f"{alone(plan):.6g}")
    for own, x in ((plan.peer, frames.peers[frames.mask]), (plan.ego, frames.ego)):
        assert (own.low <= x.min(axis=0)).all() and (own.high >= x.max(axis=0)).all()


def test_the_registry_makes_each_track_by_its_name() -> None:
    ticks: list[tuple[int, int]] = []
    job = Job(POLICY, DATASET, infer, progress=lambda done, total: ticks.append((done, total)))
    for name in ("ptq", "ptq-gptq"):
        ticks.clear()
        result = TRACKS[name].make(job)
        assert result.candidate.track == name and len(name) <= 15 and result.curve is None
        assert ticks[-1][0] == ticks[-1][1] and [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert DEFAULT_TRACKS == ("ptq", "qat")


def test_the_registry_trains_as_it_is_told(made: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[QatOptions] = []

    def train(policy: Policy, dataset: Dataset, plan: Plan, options: QatOptions, progress: object) -> QatResult:
        asked.append(options)
        return QatResult(replace(made, log=("trained",)), ((0, 1.0, 2.0),))

    monkeypatch.setattr("quant.tracks.qat.run_qat", train)
    result = TRACKS["qat"].make(Job(POLICY, DATASET, infer, seed=3, qat_steps=10))
    TRACKS["qat"].make(Job(POLICY, DATASET, infer))
    assert asked == [QatOptions(seed=3, steps=10, bias_steps=5), QatOptions()]
    assert result.curve == ((0, 1.0, 2.0),)
    assert "trained" in result.candidate.log and "chosen" in " ".join(result.candidate.log)
    assert range_cost(result.candidate.log) is not None


def test_tracks_are_asked_for_by_a_list() -> None:
    assert parse_tracks("ptq-gptq, ptq") == ("ptq", "ptq-gptq")
    for bad in ("", "ptq,", "ptq,ptq", "best"):
        with pytest.raises(InputError) as caught:
            parse_tracks(bad)
        assert "ptq-gptq" in str(caught.value.expected)
