"""A stress test finds what is damaged, nothing where nothing is, and the same whatever the workers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.limits import Limits
from quant.acceptance.stress import stress_criteria
from quant.dataset.filling import fill, free_columns, impossible
from quant.errors import InputError, StaleError
from quant.evaluation.stress import stress as module
from quant.evaluation.stress.found import BEYOND, CORNERS, FALSE, GROUPS, MISSED, SEARCHED, SPREAD, SWEPT, WORST
from quant.evaluation.stress.frames import Sampling, steps_of, widened
from quant.evaluation.stress.results import Stress, load_stress
from quant.evaluation.stress.settled import settled, slopes
from quant.evaluation.stress.stress import stress
from quant.observation.contract import Contract
from quant.observation.observations import F32, Observations
from quant.observation.resolve import Sizes, resolve
from quant.policy.policy import Activation, Box, Dense, Discrete, Policy, Pooling
from quant.policy.sides import sides_of
from quant.runners import FloatRunner, Int8Runner
from tests.evaluation.stressed import CONTRACT, CUT, FRAMES, Given, candidate_of, declared, policy_of
from tests.runners.candidates import random_policy

POLICY = policy_of()
EGOS = [4, 5, 6, 7, 18]
ASKED = 1 << 15


def given(policy: Policy = POLICY, **damage: Any) -> Given:
    return Given(policy, {"ptq": candidate_of(policy, **damage)}, CONTRACT, FRAMES[:500])


@pytest.fixture(scope="module")
def good() -> Stress:
    return given().run(stress)


@pytest.fixture(scope="module")
def cut() -> Stress:
    return given(cut=CUT).run(stress)


def sampling(ego: int, frames: int = ASKED, seed: int = 0) -> Sampling:
    contract = declared(ego)
    return Sampling(contract, fill(contract, 700, 1), frames, seed)


def made(source: Sampling, group: str) -> Observations:
    return Observations.concatenate([source.make(chunk) for chunk in source.chunks() if chunk.group == group])


# ---------------------------------------------------------------------------------------------- the frames


@pytest.mark.parametrize("ego", EGOS)
@pytest.mark.parametrize("group", [SPREAD, CORNERS, SWEPT])
def test_every_frame_within_the_bounds_can_occur(group: str, ego: int) -> None:
    source = sampling(ego)
    frames = made(source, group)
    assert len(frames) == source.counts[group] > 4000
    assert {rule: int(found.sum()) for rule, found in impossible(source.contract, frames).items() if found.any()} == {}
    assert set(frames.counts) == set(range(9))


def test_so_many_frames_as_asked_lie_within_the_bounds_and_others_come_on_top() -> None:
    counts = sampling(6, 100_001).counts
    assert counts.pop(BEYOND) == 6251
    assert sum(counts.values()) == 100_001


@pytest.mark.parametrize("ego", EGOS)
def test_frames_beyond_the_bounds_are_just_beyond_and_otherwise_possible(ego: int) -> None:
    source = sampling(ego)
    frames = made(source, BEYOND)
    broken = impossible(widened(source.contract), frames)
    assert {rule: int(found.sum()) for rule, found in broken.items() if found.any()} == {}
    low, high = source.contract.bounds(peers=False)
    assert ((frames.ego < low) | (frames.ego > high)).any(axis=1).all()


@pytest.mark.parametrize("ego", [6, 18])
def test_spread_frames_leave_no_part_of_the_range_out(ego: int) -> None:
    source = sampling(ego)
    low, high = source.contract.bounds(peers=False)
    frames = made(source, SPREAD)
    for column in free_columns(source.contract):
        share = (frames.ego[:, column] - low[column]) / (high[column] - low[column])
        assert np.histogram(share, 64, (0, 1))[0].min() > 0.9 * 0.85 * len(frames) / 64


@pytest.mark.parametrize("ego", EGOS)
def test_a_swept_feature_goes_through_its_whole_range(ego: int) -> None:
    source = sampling(ego, 1 << 16)
    frames = made(source, SWEPT)
    free = list(free_columns(source.contract))
    for ends in source.contract.bounds(peers=False):
        assert (frames.ego[:, free] == ends[free]).any(axis=0).all()
    present = frames.peers[frames.mask]
    y = source.contract.index_of("rel_y", peers=True)
    for ends in source.contract.bounds(peers=True):
        reached = (present == ends).any(axis=0)
        assert reached[[i for i in range(6) if i != y]].all()  # the field of view ends before the bound


def test_a_chunk_is_the_same_whoever_makes_it_and_another_under_another_seed() -> None:
    for group in (SPREAD, CORNERS, SWEPT, BEYOND):
        chunk = next(one for one in sampling(18).chunks() if one.group == group)
        first, again, other = (sampling(18, seed=seed).make(chunk) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first.ego, again.ego)
        np.testing.assert_array_equal(first.peers, again.peers)
        assert group == SWEPT or (first.ego != other.ego).any()


def test_many_slots_make_smaller_chunks() -> None:
    contract = resolve(Sizes(4, 6, 500), None, [])
    source = Sampling(contract, fill(contract, 50, 1), 5000, 0)
    assert max(chunk.frames for chunk in source.chunks()) * 500 * 6 <= 1 << 22
    assert {len(source.make(chunk)) - chunk.frames for chunk in source.chunks()} == {0}


def test_without_recorded_frames_nothing_is_swept() -> None:
    source = Sampling(CONTRACT, FRAMES[:0], 1000, 0)
    assert source.counts == {SPREAD: 850, CORNERS: 150, SWEPT: 0, BEYOND: 63}


# ---------------------------------------------------------------------------------------------- what is found


def test_nothing_is_missed_by_a_candidate_that_is_whole(good: Stress) -> None:
    within = good.tracks["ptq"].within
    assert (within.missed, within.false, within.saturated, good.tracks["ptq"].cut) == (0, 0, 0, ())
    assert within.frames >= 20_000
    assert 0 < within.worst < 0.5


def test_a_policy_that_never_acts_proves_nothing(good: Stress) -> None:
    last = POLICY.head[-1]
    blind = replace(POLICY, head=(*POLICY.head[:-1], replace(last, bias=last.bias - np.float32(50))))
    found = given(blind).run(stress, frames=2000)
    within = found.tracks["ptq"].within
    outcomes = {one.name: one for one in stress_criteria(found, "ptq", Limits())}
    assert outcomes["missed_action"].outcome.value == "unproven"
    assert "float never acts" in outcomes["missed_action"].sentence
    assert (within.acts, within.rests) == (0, within.frames)
    seen = good.tracks["ptq"].within
    assert seen.acts > 0 and seen.rests > 0 and seen.acts + seen.rests <= seen.frames
    assert found.to_json()["tracks"]["ptq"]["within"]["acts"] == 0


def test_a_range_cut_at_40_percent_is_found(cut: Stress, good: Stress) -> None:
    own = cut.tracks["ptq"]
    assert own.within.missed > 1000
    assert own.saturated_share > 0.99
    assert len(own.cut) == 12 and "ego's speed" in own.cut and "peers' rel_x" in own.cut
    assert own.within.worst > 0.9 > good.tracks["ptq"].within.worst


def test_a_hidden_layer_that_saturates_is_found() -> None:
    own = given(hidden=CUT).run(stress).tracks["ptq"]
    assert own.within.missed > 100
    assert (own.within.saturated, own.cut) == (0, ())


def test_a_discrete_policy_is_held_by_its_strong_and_weak_actions() -> None:
    policy = policy_of(Discrete(4))
    whole, damaged = (given(policy, **damage).run(stress).tracks["ptq"].within for damage in ({}, {"cut": CUT}))
    assert damaged.missed > 100
    assert whole.missed < 10


def test_each_track_is_measured_for_itself() -> None:
    both = replace(given(), candidates={"ptq": candidate_of(POLICY), "qat": candidate_of(POLICY, "qat", cut=CUT)})
    found = both.run(stress)
    assert found.tracks["ptq"].within.missed == 0 < found.tracks["qat"].within.missed
    alone = given().run(stress)
    assert found.tracks["ptq"].groups[SPREAD] == alone.tracks["ptq"].groups[SPREAD]


def test_frames_beyond_the_bounds_are_told_and_not_counted(cut: Stress) -> None:
    own = cut.tracks["ptq"]
    assert own.groups[BEYOND].missed > 0
    assert own.within.missed == sum(own.groups[group].missed for group in GROUPS if group != BEYOND)
    assert own.within.frames == sum(one.frames for one in own.by_peers)
    assert not (cut.found.group == BEYOND).any()


def test_what_is_counted_is_what_the_runners_decide(cut: Stress) -> None:
    """Every frame that was kept, run again."""
    found = cut.found
    reference = FloatRunner(POLICY).values(found.observations)
    candidate = Int8Runner(candidate_of(POLICY, cut=CUT)).values(found.observations)
    np.testing.assert_allclose(reference, found.reference, atol=1e-5)
    np.testing.assert_array_equal(candidate, found.candidate)
    np.testing.assert_allclose(np.abs(candidate - reference)[:, 0], found.deviation, atol=1e-5)
    missed = found.of("ptq", MISSED)
    assert len(missed) == 64 and missed.settled.all()
    assert (missed.reference > 0.5).all() and (missed.candidate < 0.1).all()
    assert {rule: 1 for rule, bad in impossible(CONTRACT, found.observations).items() if bad.any()} == {}


def test_the_search_goes_on_from_the_worst(good: Stress) -> None:
    own = good.tracks["ptq"]
    others = max(own.groups[group].worst for group in (SPREAD, CORNERS, SWEPT))
    assert own.groups[SEARCHED].frames == 9 * 64
    assert own.groups[SEARCHED].worst >= others
    assert good.worst["ptq"].deviation[0] == pytest.approx(own.within.worst, rel=1e-5)
    assert set(good.found.of("ptq", WORST).observations.counts) == set(range(9))


@pytest.mark.parametrize("ego", [6, 18])
def test_a_search_finds_what_the_pass_did_not(ego: int) -> None:
    """Of a candidate whose error grows towards one corner, which a hundred frames do not hit."""
    policy = policy_of(ego=ego)
    contract = declared(ego)
    made = Given(policy, {"ptq": candidate_of(policy, ego=ego, cut=0.9)}, contract, fill(contract, 100, 2))
    own = made.run(stress, frames=200).tracks["ptq"]
    assert own.groups[SEARCHED].worst > max(own.groups[group].worst for group in (SPREAD, CORNERS, SWEPT)) + 0.01


def test_the_bytes_do_not_depend_on_the_workers(monkeypatch: pytest.MonkeyPatch, good: Stress) -> None:
    monkeypatch.setattr(module, "WORTH_A_POOL", 0)
    again = given().run(stress, workers=2)
    assert json.dumps(again.to_json()) == json.dumps(good.to_json())
    assert again.found.content() == good.found.content()


def test_another_seed_finds_other_frames(good: Stress) -> None:
    other = given().run(stress, seed=1)
    assert other.to_json()["found_sha256"] != good.to_json()["found_sha256"]


def test_progress_goes_up_to_the_whole() -> None:
    told: list[tuple[int, int]] = []
    given().run(stress, frames=500, progress=lambda done, total: told.append((done, total)))
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done) and len(set(totals)) == 1 and done[-1] == totals[0]


@pytest.mark.parametrize("changes", [{"frames": 0}, {"candidates": {}}], ids=str)
def test_nothing_to_stress_is_refused(changes: dict[str, Any]) -> None:
    made = replace(given(), **{name: value for name, value in changes.items() if name == "candidates"})
    with pytest.raises(InputError, match="nothing to stress"):
        made.run(stress, **{name: value for name, value in changes.items() if name == "frames"})


def test_a_contract_without_a_bound_is_refused() -> None:
    open_ended = replace(CONTRACT, ego=(replace(CONTRACT.ego[0], high=None), *CONTRACT.ego[1:]))
    with pytest.raises(InputError, match="no bound is known of speed"):
        replace(given(), contract=open_ended).run(stress)


# ---------------------------------------------------------------------------------------------- settled


def linear(weight: float) -> Policy:
    """The action is half of the range plus ``weight`` times the sum of the ego; it sees no peers."""
    encoder = Dense(np.zeros((2, 6), np.float32), np.zeros(2, np.float32), "relu")
    head = np.concatenate([np.zeros((1, 2)), np.full((1, 6), weight)], axis=1).astype(np.float32)
    return Policy((encoder,), (Dense(head, np.full(1, 0.5, np.float32), "linear"),), "max", Box((0.0,), (1.0,)))


def zigzag() -> Policy:
    """The action goes from one end to the other and back with every fourth step of the speed."""
    step, kinks = 1 / 255, 128
    hidden = np.zeros((kinks, 8), np.float32)
    hidden[:, 2] = 1  # the speed, behind the two of the encoder
    slopes = np.where(np.arange(kinks) == 0, 1, 2) * np.where(np.arange(kinks) % 2, -1, 1) * 4 / step
    head = (
        Dense(hidden, -2 * step * np.arange(kinks, dtype=np.float32), "relu"),
        Dense(slopes[None].astype(np.float32), np.full(1, 0.5 - 4, np.float32), "linear"),
    )
    return replace(linear(0.0), head=head)


def far(ego: F32) -> Observations:
    return Observations(ego, np.zeros((len(ego), 8, 6), np.float32), np.zeros((len(ego), 8), np.bool_))


def test_settled_is_told_to_the_step_where_the_policy_is_linear() -> None:
    """All features move at once: what holds is the sum of their steps."""
    reach = float(steps_of(CONTRACT.ego).sum())
    ego = np.zeros((2, 6), np.float32)
    ego[:, 0] = reach * np.array([0.99, 1.01])
    stays = settled(linear(1.0), CONTRACT, far(ego), np.zeros(2, np.int64), np.ones(2, np.bool_))
    assert stays.tolist() == [False, True]


def test_resting_is_settled_by_the_other_edge() -> None:
    reach = float(steps_of(CONTRACT.ego).sum())
    ego = np.zeros((2, 6), np.float32)
    ego[:, 0] = -0.4 - reach * np.array([0.99, 1.01])  # a tenth of the range is .4 below its middle
    stays = settled(linear(1.0), CONTRACT, far(ego), np.zeros(2, np.int64), np.zeros(2, np.bool_))
    assert stays.tolist() == [False, True]


def test_a_policy_too_steep_for_int8_is_settled_nowhere_and_nothing_counts_against_its_candidates() -> None:
    found = given(zigzag()).run(stress)
    within = found.tracks["ptq"].within
    assert found.unsettled.share > 0.95
    assert within.missed_unsettled + within.false_unsettled > 1000
    assert 20 * (within.missed + within.false) < within.missed_unsettled + within.false_unsettled


def test_a_flat_policy_is_settled(good: Stress) -> None:
    gentle = given(policy_of(gain=0.3)).run(stress, frames=2000)
    assert gentle.unsettled.share < good.unsettled.share + 0.1
    assert good.unsettled.on_a_side <= good.unsettled.sampled


def test_no_corner_of_the_box_is_worse_than_what_the_search_finds() -> None:
    """By trying all corners of frames without peers, 64 of them."""
    policy = policy_of(gain=6.0)
    frames = FRAMES[np.flatnonzero(FRAMES.counts == 0)]
    last = policy.head[-1]
    middle = np.median(policy.forward(frames).values) - np.float32(0.5)
    policy = replace(policy, head=(*policy.head[:-1], replace(last, bias=last.bias - middle)))
    frames = frames[sides_of(policy.action_space, FloatRunner(policy).values(frames)).acts[:, 0]]
    corners = np.array(list(itertools.product([-1, 1], repeat=6)), np.float32) * steps_of(CONTRACT.ego)
    worst = np.min(
        [FloatRunner(policy).values(Observations(frames.ego + one, frames.peers, frames.mask)) for one in corners],
        axis=0,
    )[:, 0]
    stays = settled(policy, CONTRACT, frames, np.zeros(len(frames), np.int64), np.ones(len(frames), np.bool_))
    assert 0.02 < (worst <= 0.5).mean() < 0.98
    np.testing.assert_array_equal(stays, worst > 0.5)


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
@pytest.mark.parametrize("activation", ["relu", "relu6", "tanh", "elu", "sigmoid"])
@pytest.mark.parametrize("space", [Box((0.0, -1.0), (1.0, 3.0)), Discrete(4), Discrete(3)], ids=str)
def test_slopes_are_those_of_finite_differences(
    space: Box | Discrete, activation: Activation, pooling: Pooling
) -> None:
    policy = random_policy(2, ego=6, hidden=(16,), head_activation=activation, pooling=pooling, action_space=space)
    rng = np.random.default_rng(0)
    frames = FRAMES[100:140]
    component = rng.integers(space.width if isinstance(space, Box) else 1, size=40)
    acts = rng.random(40) < 0.5
    found = slopes(policy, frames, component, acts)
    signs = np.array([-1, 1], np.float32)
    direction = rng.choice(signs, (40, 6)), rng.choice(signs, (40, 8, 6))
    step = np.float32(1e-3)
    ends = [
        slopes(
            policy,
            Observations(
                frames.ego + sign * step * direction[0],
                frames.peers + sign * step * direction[1],
                frames.mask,
            ),
            component,
            acts,
        ).margin
        for sign in signs
    ]
    measured = (ends[1] - ends[0]) / (2 * step)
    expected = (found.ego * direction[0]).sum(axis=1) + (found.peers * direction[1]).sum(axis=(1, 2))
    # At a kink the two differ; there are few.
    assert np.isclose(measured, expected, rtol=0.02, atol=0.02).mean() > 0.85
    assert (found.peers[~frames.mask] == 0).all()


def test_sides_of_a_box_and_of_discrete_actions() -> None:
    box = sides_of(Box((-1.0,), (1.0,)), np.array([[-5], [-0.81], [-0.79], [0.0], [0.01], [5]], np.float32))
    assert box.acts[:, 0].tolist() == [False, False, False, False, True, True]
    assert box.rests[:, 0].tolist() == [True, True, False, False, False, False]
    for n, strong, weak in ((2, [1], [0]), (3, [2], [0]), (4, [2, 3], [0, 1]), (6, [4, 5], [0, 1]), (1, [], [])):
        sides = sides_of(Discrete(n), np.eye(n, dtype=np.float32))
        assert np.flatnonzero(sides.acts[:, 0]).tolist() == strong
        assert np.flatnonzero(sides.rests[:, 0]).tolist() == weak


# ---------------------------------------------------------------------------------------------- the file


@pytest.fixture
def saved(cut: Stress, tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "stress.json", tmp_path / "stress_frames.npz"
    cut.save(*paths)
    return paths


def test_the_file_is_read_back_as_it_was(cut: Stress, saved: tuple[Path, Path]) -> None:
    again = load_stress(*saved, CONTRACT)
    assert again.to_json() == cut.to_json()
    assert again.tracks == cut.tracks
    with np.load(saved[1]) as drive:
        assert {"ego", "peers", "peer_mask"} <= set(drive.files)
        assert len(drive["ego"]) == len(cut.found) <= 72 + 2 * 64
    assert set(cut.found.kind) <= {WORST, MISSED, FALSE}


def test_figures_that_were_changed_are_refused(saved: tuple[Path, Path]) -> None:
    document = json.loads(saved[0].read_text())
    document["tracks"]["ptq"]["within"]["missed"] = 0
    saved[0].write_text(json.dumps(document))
    with pytest.raises(InputError, match="do not follow from others"):
        load_stress(*saved, CONTRACT)


@pytest.mark.parametrize("key", ["tracks", "unsettled", "sha256", "frames", "found_sha256"])
def test_a_missing_key_is_refused(saved: tuple[Path, Path], key: str) -> None:
    document = json.loads(saved[0].read_text())
    del document[key]
    saved[0].write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"lacks or garbles '{key}'"):
        load_stress(*saved, CONTRACT)


def test_other_frames_or_another_contract_are_stale(good: Stress, saved: tuple[Path, Path]) -> None:
    with pytest.raises(StaleError, match="another observation contract"):
        load_stress(*saved, declared(5))
    good.found.save(saved[1])
    with pytest.raises(StaleError, match="other frames"):
        load_stress(*saved, CONTRACT)


def test_damaged_frames_are_refused(saved: tuple[Path, Path]) -> None:
    saved[1].write_bytes(saved[1].read_bytes()[:-40])
    with pytest.raises(InputError, match="not the frames of a stress test"):
        load_stress(*saved, CONTRACT)


def test_the_contract_of_another_ego_gives_other_frames() -> None:
    contract: Contract = declared(18)
    policy = policy_of(ego=18)
    made = Given(policy, {"ptq": candidate_of(policy, ego=18)}, contract, fill(contract, 300, 3))
    found = made.run(stress, frames=4000)
    assert {rule: 1 for rule, bad in impossible(contract, found.found.observations).items() if bad.any()} == {}
    assert found.tracks["ptq"].within.saturated == 0


def contradicting(stress_: Stress, **changes: Any) -> Stress:
    """Its counts changed wherever they stand, so that they still follow from one another."""
    tracks = {
        name: replace(
            one,
            groups={group: replace(tally, **changes) for group, tally in one.groups.items()},
            by_peers=tuple(replace(tally, **changes) for tally in one.by_peers),
        )
        for name, one in stress_.tracks.items()
    }
    return replace(stress_, tracks=tracks)


@pytest.mark.parametrize(
    "changes", [{"missed": 0}, {"false": 0}, {"worst": 0.01}, {"missed_unsettled": 0, "missed": 1}]
)
def test_counts_that_the_kept_frames_contradict_are_refused(cut: Stress, tmp_path: Path, changes: Any) -> None:
    paths = tmp_path / "stress.json", tmp_path / "stress_frames.npz"
    contradicting(cut, **changes).save(*paths)
    with pytest.raises(InputError, match="contradicts the frames"):
        load_stress(*paths, CONTRACT)


def test_counts_of_which_no_frame_was_kept_are_refused(good: Stress, tmp_path: Path) -> None:
    paths = tmp_path / "stress.json", tmp_path / "stress_frames.npz"
    contradicting(good, missed=2).save(*paths)
    with pytest.raises(InputError, match="contradicts the frames"):
        load_stress(*paths, CONTRACT)
