"""The two tracks: the search and the training never lose what they started from, and repeat to the byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from benchmarks.tracks import plain_candidate
from quant.dataset import Dataset, Split, build_dataset, read_drive
from quant.dataset.storage import Made
from quant.policy import Box, Discrete, Policy, load_policy, policy_digest
from quant.runners import Int8Runner
from quant.tracks import objective, ptq
from quant.tracks.candidate import Candidate
from quant.tracks.export import export
from quant.tracks.objective import Frames, Objective, decision_error
from quant.tracks.plan import Choice, Plan, Rewriting, calibrate, make_plan, simulate
from quant.tracks.ptq import MARGINS, find_plan, rewritten, search
from quant.tracks.qat import QatOptions, QatResult, run_qat
from tests.tracks import strategies

POLICY = strategies.policy(2, ego=6)
DATASET = strategies.dataset_of(POLICY, 400)
TWO = Box((-1.0, 0.0), (1.0, 3.0))
OPTIONS = QatOptions(steps=60, bias_steps=30, check_every=20, batch=64, seed=0)


@given(
    logits=st.lists(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=2, max_size=6),
    seed=strategies.seeds,
    shift=st.floats(-50, 50, width=32),
)
@settings(max_examples=80, deadline=None)
def test_the_error_of_logits_is_the_divergence_of_their_softmax(
    logits: list[list[float]], seed: int, shift: float
) -> None:
    reference = np.array(logits, np.float32)
    values = reference + np.random.default_rng(seed).normal(0, 1, reference.shape).astype(np.float32)
    p, q = softmax(reference.astype(float), axis=1), softmax(values.astype(float), axis=1)
    error = decision_error(Discrete(3), reference, values)
    assert error == pytest.approx(float(rel_entr(p, q).sum(axis=1).mean()), rel=1e-3, abs=1e-5)
    assert decision_error(Discrete(3), reference, values + np.float32(shift)) == pytest.approx(
        error, rel=1e-2, abs=1e-4
    )
    assert decision_error(Discrete(3), reference, reference) == 0


def test_the_error_of_actions_is_measured_after_clipping() -> None:
    box = Box((0.0, -1.0), (1.0, 1.0))
    reference = np.array([[0.5, 0.0], [7.0, -9.0]], np.float32)
    values = np.array([[0.25, 0.5], [1.0, -1.0]], np.float32)
    assert decision_error(box, reference, values) == pytest.approx((0.25 + 0.5 + 0 + 0) / 4)


@given(policy=strategies.policies(), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_the_search_is_never_worse_than_its_start_and_tells_the_truth(policy: Policy, seed: int) -> None:
    frames = Frames.only(strategies.frames_for(policy, 60, seed))
    ticks: list[tuple[int, int]] = []
    found = search(policy, frames, lambda done, total: ticks.append((done, total)))
    choice, error, log = found.choice, found.error, found.log
    start = Choice(MARGINS[0], Rewriting(0.0), (1.0,) * len(policy.encoder), (1.0,) * len(policy.head))

    def error_of(tried: Choice) -> float:
        calibration = calibrate(rewritten(policy, frames, tried.rewriting).policy, frames.all, frames.features)
        values = simulate(make_plan(calibration, tried), frames.all, round_weights=False)
        return Objective.of(policy, frames)(values)

    assert error_of(choice) == error <= error_of(start)
    assert log[0].startswith("start") and log[0].endswith(f"{error_of(start):.6g}")
    if len(log) > 1:
        assert log[-1].endswith(f"{error:.6g}")
    assert ticks[-1][0] == ticks[-1][1] == len(ticks)


def test_the_search_finds_an_outlier_to_clip() -> None:
    """One peer in 3000 is far off: ranges that hold it waste most steps."""
    frames = strategies.frames_for(POLICY, 700)
    row = int(np.argmax(frames.mask[:, 0]))
    frames.peers[row, 0] = 12.0
    found = search(POLICY, Frames.only(frames))
    assert min(*found.choice.encoder, *found.choice.head) < 1
    assert found.error < 0.7 * float(found.log[0].split()[-1])


def without_held_out(dataset: Dataset) -> Dataset:
    """The dataset with other numbers in every held-out frame."""
    rows = dataset.rows(Split.HELD_OUT)
    inputs, outputs, peers = dataset.policy_inputs.copy(), dataset.policy_outputs.copy(), dataset.peer_inputs.copy()
    inputs[rows] = 5
    outputs[rows] = 5
    peers[dataset.peer_rows(rows)] = 5
    return replace(dataset, policy_inputs=inputs, policy_outputs=outputs, peer_inputs=peers)


def test_no_track_looks_at_held_out_frames() -> None:
    plan, log = find_plan(POLICY, DATASET)
    other, other_log = find_plan(POLICY, without_held_out(DATASET))
    assert log == other_log
    assert (plan.encoder_ranges, plan.head_ranges) == (other.encoder_ranges, other.head_ranges)
    for one, same in zip((*plan.encoder, *plan.head), (*other.encoder, *other.head), strict=True):
        np.testing.assert_array_equal(one.weight, same.weight)
    assert len(Frames.of(DATASET).all) == len(DATASET) - len(DATASET.rows(Split.HELD_OUT))


def test_a_large_dataset_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = DATASET.policy_inputs.copy()
    inputs[:, POLICY.embedding_size] = np.arange(len(DATASET))
    monkeypatch.setattr(objective, "MAX_SEEN", 100)
    kept = Frames.of(replace(DATASET, policy_inputs=inputs)).seen.ego[:, 0].astype(int)
    rows = np.flatnonzero((DATASET.column("split") != Split.HELD_OUT) & (DATASET.column("made") != Made.FILLED))
    places = np.searchsorted(rows, kept)
    assert len(kept) == 100 and (rows[places] == kept).all()
    assert (places[0], places[-1]) == (0, len(rows) - 1)
    assert set(np.diff(places)) == {len(rows) // 100, len(rows) // 100 + 1}


def test_ptq_repeats_to_the_byte() -> None:
    one, again = ptq.run_ptq(POLICY, DATASET), ptq.run_ptq(POLICY, DATASET)
    assert one.peer_encoder == again.peer_encoder and one.policy_head == again.policy_head
    assert one.log == again.log
    assert one.track == "ptq" and one.dataset_sha256 == DATASET.digest


@pytest.fixture(scope="module")
def start() -> Plan:
    return find_plan(POLICY, DATASET)[0]


@pytest.fixture(scope="module")
def trained(start: Plan) -> QatResult:
    return run_qat(POLICY, DATASET, start, OPTIONS)


def error_on(dataset: Dataset, candidate: Candidate) -> float:
    frames = Frames.of(dataset)
    return Objective.of(POLICY, frames)(Int8Runner(candidate).values(frames.all))


def test_training_cannot_lose_what_ptq_had(start: Plan, trained: QatResult) -> None:
    frames = Frames.of(DATASET)
    had = Objective.of(POLICY, frames)(simulate(start, frames.all))
    kept = float(
        trained.candidate.log[[line.startswith("kept") for line in trained.candidate.log].index(True)].split()[-1]
    )
    assert kept == pytest.approx(min(had, *(error for _, _, error in trained.curve)), rel=1e-5)
    assert kept <= had
    # In the arithmetic of verdicts, too.
    assert error_on(DATASET, trained.candidate) <= 1.1 * error_on(DATASET, export("ptq", start, DATASET, []))


def test_training_that_goes_astray_keeps_ptqs_own_weights(start: Plan) -> None:
    wild = replace(OPTIONS, steps=20, bias_steps=0, learning_rate=10.0)
    result = run_qat(POLICY, DATASET, start, wild)
    plain = export("qat", start, DATASET, [])
    assert result.candidate.peer_encoder == plain.peer_encoder and result.candidate.policy_head == plain.policy_head
    assert result.curve[-1][2] > 2 * result.curve[0][2]


def test_the_loss_curve_is_kept(trained: QatResult) -> None:
    steps = [step for step, _, _ in trained.curve]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 90
    assert {20, 40, 60, 80} <= set(steps)
    assert np.isnan(trained.curve[0][1]) and all(np.isfinite(loss) and loss >= 0 for _, loss, _ in trained.curve[1:])
    assert all(f"step {step}: " in "\n".join(trained.candidate.log) for step in steps[1:])


def test_training_moves_the_weights_and_not_the_interfaces(start: Plan, trained: QatResult) -> None:
    plain = export("ptq", start, DATASET, [])
    assert trained.candidate.peer_encoder.tflite != plain.peer_encoder.tflite
    assert trained.candidate.track == "qat"
    for one, other in (
        (trained.candidate.peer_input, plain.peer_input),
        (trained.candidate.ego_input, plain.ego_input),
    ):
        np.testing.assert_array_equal(one.gain, other.gain)
        np.testing.assert_array_equal(one.offset, other.offset)


def test_training_repeats_to_the_byte_and_never_sees_held_out_frames(start: Plan, trained: QatResult) -> None:
    again = run_qat(POLICY, without_held_out(DATASET), start, OPTIONS)
    assert again.candidate.peer_encoder == trained.candidate.peer_encoder
    assert again.candidate.policy_head == trained.candidate.policy_head
    np.testing.assert_array_equal(np.array(again.curve), np.array(trained.curve))


def test_another_seed_trains_another_candidate(start: Plan, trained: QatResult) -> None:
    other = run_qat(POLICY, DATASET, start, replace(OPTIONS, seed=1)).candidate
    assert other.policy_head.tflite != trained.candidate.policy_head.tflite


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        strategies.policy(5, encoder=((8, "tanh"),), hidden=((8, "elu"),), pooling="mean", space=Discrete(3)),
        strategies.policy(6, encoder=((8, "elu"),), hidden=((8, "relu6"),), pooling="sum", space=TWO),
        strategies.policy(7, encoder=((8, "sigmoid"),), hidden=(), pooling="max", peer=3, max_peers=3),
    ],
    ids=["mean", "sum", "max"],
)  # fmt: skip
def test_policies_of_every_kind_train_and_run(policy: Policy) -> None:
    dataset = strategies.dataset_of(policy, 300)
    plan, _ = find_plan(policy, dataset)
    result = run_qat(policy, dataset, plan, replace(OPTIONS, steps=20, bias_steps=10, check_every=10))
    held_out = dataset.observations(dataset.rows(Split.HELD_OUT))
    values = Int8Runner(result.candidate).values(held_out)
    wanted = policy.action_space.clip(policy.forward(held_out).values)
    assert np.abs(values - wanted).mean() < 0.03 * np.ptp(wanted)
    errors = [error for _, _, error in result.curve]
    # Fixed ranges and float weights of the start: the student begins where PTQ ended, in its own loss too.
    assert errors[1] < 3 * errors[0]


def mean_error(policy: Policy, dataset: Dataset, candidate: Candidate) -> float:
    """Of the action, on recorded frames that no track has seen."""
    rows = dataset.rows(Split.HELD_OUT, Made.SEEN)
    frames = dataset.observations(rows)
    wanted = policy.action_space.clip(policy.forward(frames).values)
    return float(np.abs(Int8Runner(candidate).values(frames) - wanted).mean())


@pytest.mark.slow
@pytest.mark.skipif(not strategies.REAL.is_dir(), reason="no recorded drives at hand")
@pytest.mark.parametrize("ego", [5, 6])
def test_on_real_drives_both_tracks_beat_the_plain_converter_by_a_quarter(ego: int) -> None:
    policy = load_policy(strategies.REAL / f"policy_ego{ego}.zip")
    drives = [read_drive(strategies.REAL / f"drive_{name}_ego{ego}.npz", policy) for name in "ab"]
    dataset = build_dataset(policy, policy_digest(policy), drives, seed=0)
    bar = mean_error(policy, dataset, plain_candidate(policy, dataset))
    plan, log = find_plan(policy, dataset)
    of_ptq = mean_error(policy, dataset, export("ptq", plan, dataset, log))
    trained = run_qat(policy, dataset, plan, QatOptions(steps=150, bias_steps=75)).candidate
    of_qat = mean_error(policy, dataset, trained)
    assert of_ptq <= 0.75 * bar
    assert of_qat <= 0.75 * bar
