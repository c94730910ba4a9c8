"""GPTQ's two variants: one scale of weights a layer, and features with residuals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.anatomy import dissect
from quant.anatomy.dissection import FOLDING_TOLERANCE
from quant.anatomy.simulation import Grid, Simulation, build_network
from quant.policy import Activation, Box, Dense, Discrete, Pooling
from quant.runners import Int8Runner, parity, read_model, release_dependent
from quant.runners.flatbuffer import FullyConnected
from quant.tracks import gptq
from quant.tracks.candidate import Affine, Candidate
from quant.tracks.integers import IntegerLayer
from quant.tracks.job import Job
from quant.tracks.objective import Frames
from quant.tracks.plan import (
    PEER_RANGE,
    Choice,
    LayerRanges,
    Range,
    Rewriting,
    calibrate,
    equalize,
    make_plan,
    short,
    simulate,
    weight_scale,
)
from quant.tracks.ptq import FACTORS, rewritings
from quant.tracks.registry import TRACKS
from quant.tracks.rounding import SHARES, descend, measure, round_columns, round_layer
from quant.tracks.storage import load_candidate, save_candidate
from tests.tracks import strategies
from tests.tracks.test_gptq import DATASET, POLICY, error_of, infer


@pytest.fixture(scope="module")
def made() -> dict[str, Candidate]:
    job = Job(POLICY, DATASET, infer)
    return {name: TRACKS[name].make(job).candidate for name in ("ptq-gptq", "ptq-gptq-pt", "ptq-residual")}


def test_the_registry_names_them(made: dict[str, Candidate]) -> None:
    for name, candidate in made.items():
        assert candidate.track == name and len(name) <= 15 and candidate.bits == 8
        kept = next(line for line in candidate.log if line.startswith("kept"))
        assert f"error {error_of(POLICY, DATASET, candidate):.6g}" in kept


def test_one_scale_of_weights_takes_fewer_bytes_and_errs_little_more(made: dict[str, Candidate]) -> None:
    single, own = made["ptq-gptq-pt"], made["ptq-gptq"]
    for part in ("peer_encoder", "policy_head"):
        assert len(getattr(single, part).tflite) < 0.9 * len(getattr(own, part).tflite)
        model = read_model(getattr(single, part).tflite)
        assert not release_dependent(model)
        assert all(len(one.weight_scale) == 1 for one in model.layers if isinstance(one, FullyConnected))
    assert error_of(POLICY, DATASET, single) < 1.5 * error_of(POLICY, DATASET, own)


def test_residuals_take_a_part_of_the_error_away(made: dict[str, Candidate]) -> None:
    fine, own = made["ptq-residual"], made["ptq-gptq"]
    assert error_of(POLICY, DATASET, fine) < error_of(POLICY, DATASET, own)
    assert {fine.peer_input.residual, fine.ego_input.residual} <= set(FACTORS)
    assert read_model(fine.peer_encoder.tflite).input.size == 2 * POLICY.peer_size
    embedding = read_model(fine.peer_encoder.tflite).output.size
    assert read_model(fine.policy_head.tflite).input.size == embedding + 2 * POLICY.ego_size


def test_residual_candidates_come_back_from_their_files(made: dict[str, Candidate], tmp_path: Path) -> None:
    save_candidate(made["ptq-residual"], tmp_path)
    loaded, frames = load_candidate(tmp_path, "ptq-residual"), Frames.of(DATASET).seen
    np.testing.assert_array_equal(infer(loaded, frames), infer(made["ptq-residual"], frames))


def test_a_device_gets_the_codes_before_their_residuals(made: dict[str, Candidate]) -> None:
    candidate, frames = made["ptq-residual"], Frames.of(DATASET).seen[:50]
    seen = Int8Runner(candidate).decide(frames)
    steps = frames.ego * candidate.ego_input.gain + candidate.ego_input.offset
    q = np.clip(np.rint(steps), -128, 127)
    r = np.clip(np.rint((steps - q) * candidate.ego_input.residual), -128, 127)
    np.testing.assert_array_equal(seen.head_inputs, np.concatenate([seen.pooled, q, r], axis=1))
    assert seen.peer_inputs.shape == (50, POLICY.max_peers, 2 * POLICY.peer_size)
    assert not seen.peer_inputs[~frames.mask].any()


VARIANTS: list[tuple[bool, int, Pooling, Activation, Activation]] = [
    (True, 0, "max", "relu", "tanh"),
    (True, 0, "sum", "elu", "relu6"),
    (True, 16, "mean", "tanh", "sigmoid"),
    (False, 16, "max", "linear", "elu"),
    (False, 16, "sum", "relu6", "relu"),
    (False, 2, "mean", "sigmoid", "linear"),
]


@pytest.mark.parametrize("space", [Box((0.0,), (1.0,)), Discrete(3)])
@pytest.mark.parametrize(("per_tensor", "residual", "pooling", "inner", "outer"), VARIANTS)
def test_what_runs_is_what_was_planned(
    per_tensor: bool, residual: int, pooling: Pooling, inner: Activation, outer: Activation, space: Box | Discrete
) -> None:
    """TFLite-Micro agrees in every byte and in every release, and nearly all decisions are those of the plan."""
    shape = ((8, inner), (6, outer))
    policy = strategies.policy(residual, encoder=shape, hidden=((8, outer),), pooling=pooling, space=space)
    dataset = strategies.dataset_of(policy, 120)
    frames = Frames.of(dataset).seen
    choice = Choice(0.1, Rewriting(0.5), (1.0, 1.0), (1.0, 1.0), residual, residual)
    calibration = calibrate(equalize(policy, frames, 0.5), frames)
    plan = make_plan(calibration, choice, per_tensor=per_tensor)
    candidate = gptq.Rounded.nearest(plan).candidate(dataset)
    assert parity(candidate, frames[:20]).conforms
    for sub in (candidate.peer_encoder, candidate.policy_head):
        assert not release_dependent(read_model(sub.tflite))
    step = plan.head_ranges[-1].after.scale
    found, planned = Int8Runner(candidate).values(frames), policy.action_space.clip(simulate(plan, frames))
    assert np.median(np.abs(found - planned)) < 1.01 * step
    assert np.abs(found - planned).max() < 0.1 * 255 * step


def test_a_plan_without_weights_rounded_is_the_policy_to_the_residuals_step() -> None:
    """The folded columns of residuals, and what their code of zero costs in the bias."""
    frames = Frames.of(DATASET).seen
    calibration, choice = calibrate(POLICY, frames), Choice(0.1, Rewriting(), (1.0,) * 2, (1.0,) * 2)
    plain, fine = (make_plan(calibration, replace(choice, peer_residual=factor)) for factor in (0, 16))
    peers = frames.peers[frames.mask]
    exact = POLICY.encoder[0](peers)
    errors = [np.abs(plan.encoder[0](plan.hold_peers(peers)) - exact).max() for plan in (plain, fine)]
    assert errors[1] < errors[0] / 10
    assert (plain.peers, fine.peers) == (PEER_RANGE, PEER_RANGE)


@pytest.mark.parametrize("entries", [1 << 23, 200])
def test_one_scale_is_the_one_with_which_all_outputs_err_least(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outliers of inputs that hardly move make a narrower scale better, for each block of outputs another one."""
    monkeypatch.setattr("quant.tracks.rounding.MAX_ENTRIES", entries)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 10)).astype(np.float32)
    weight[0, 0], weight[3, 5] = 6.0, -5.0
    layer = Dense(weight, rng.normal(size=6).astype(np.float32), "linear")
    x = (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 10)) + rng.normal(size=(300, 10))).astype(np.float32)
    x[:, [0, 5]] *= np.float32(1e-3)
    target, own = layer(x), LayerRanges(None, Range.around(-40, 40))
    made = round_layer(
        layer, PEER_RANGE, own, x, target, np.ones((300, 1), np.float32), 1e-6, matched=False, per_tensor=True
    )
    errors = measure(
        x.astype(np.float64),
        target.astype(np.float64),
        np.ones((300, 1)),
        weight.astype(np.float64),
        1e-6,
        matched=False,
    )
    totals = []
    for share in SHARES:
        wide = np.full(6, short(float(weight_scale(layer, PEER_RANGE, True)[0, 0]) * share))
        steps = descend(errors, wide, round_columns(errors, wide))
        totals.append(float(errors.of(steps * wide[:, None]).sum()))
    found = float(errors.of(made.weight * np.float64(made.scale[0])).sum())
    assert made.scale.shape == (1,) and found == pytest.approx(min(totals), rel=1e-6)
    assert min(totals) < 0.99 * max(totals) and np.argmin(totals) > 0
    np.testing.assert_allclose(np.mean(x @ (made.weight * made.scale).T - target, axis=0), -_bias(made), atol=1e-4)


def _bias(made: IntegerLayer) -> NDArray[np.float64]:
    return np.asarray(made.bias * np.float64(made.scale[0]) * made.source.scale)


def test_one_scale_is_wide_enough_for_the_largest_bias() -> None:
    weight = np.array([[1e-9, -1e-9], [2e-9, 1e-9]], np.float32)
    layer = Dense(weight, np.array([3.0, 0.1], np.float32), "relu")
    made = IntegerLayer.nearest(layer, PEER_RANGE, LayerRanges(None, Range.around(0, 4)), per_tensor=True)
    assert 2**28 < made.bias.max() <= 2**30
    np.testing.assert_allclose(_bias(made), layer.bias, rtol=1e-6)


# What `quant explain` makes of them.


@pytest.mark.parametrize("name", ["ptq-gptq-pt", "ptq-residual"])
def test_explain_is_true_to_the_files(made: dict[str, Candidate], name: str) -> None:
    frames = strategies.frames_for(POLICY, 400, seed=3)
    network = build_network(POLICY, made[name], rewritings(POLICY, DATASET))
    if not made[name].ego_input.residual:  # else without any rounding there is nothing left over, but its weights
        exact = POLICY.forward(frames).values
        np.testing.assert_allclose(Simulation(network, frames).values({}), exact, atol=2e-5)
    simulated = POLICY.action_space.clip(Simulation(network, frames).values(network.everything).astype(np.float32))
    measured = Int8Runner(made[name], "litert").values(frames)
    assert (np.abs(simulated - measured) < network.output_step / 2).mean() > 0.9


def test_explain_shows_that_inputs_with_residuals_cost_less(made: dict[str, Candidate]) -> None:
    frames, ways = strategies.frames_for(POLICY, 400, seed=3), rewritings(POLICY, DATASET)
    plain, fine = (dissect(POLICY, made[name], frames, rewritten=ways) for name in ("ptq-gptq", "ptq-residual"))
    for source in ("peer input", "ego input"):
        assert fine.source(source).alone.overall.mae < 0.15 * plain.source(source).alone.overall.mae
    tensor = fine.source("ego input").tensor
    assert tensor is not None and len(tensor.codes) == 255 * (1 + made["ptq-residual"].ego_input.residual) + 1
    shown = next(one for one in fine.to_json()["sources"] if one["name"] == "ego input")["tensor"]["codes"]
    assert len(shown) == 256 and sum(shown) == sum(tensor.codes)
    assert fine.folding_error < FOLDING_TOLERANCE


def test_a_grid_of_residuals_has_finer_steps() -> None:
    affine = Affine(np.array([4.0], np.float32), np.array([-3.0], np.float32), residual=16)
    grid = Grid.of_features(affine)
    assert (grid.lowest, grid.highest) == (-128 * 17, 127 * 17)
    x = np.array([[0.3], [1.77], [40.0], [-1e3]], np.float32)
    q = affine.quantize(x).astype(np.int64)
    np.testing.assert_array_equal(grid.held(grid.codes(x)), q[:, :1] * 16 + q[:, 1:])
