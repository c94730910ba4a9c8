"""Denser and harder scenes: every peer count, consistent egos, hard braking only where it is lacking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.dataset.augmentation import (
    ACCEL,
    ENOUGH_HARD_BRAKING,
    FULL_BRAKING,
    HARD_BRAKING,
    JITTER,
    REL_SPEED,
    augment,
    derived_columns,
    hard_braking,
)
from quant.policy import Observations
from tests.tracks import strategies

NAMES = {"count": "number of peers", "lowest": "lowest peer acceleration", "closing": "largest closing speed"}
LAYOUTS = {
    5: {3: "count", 4: "lowest"},
    6: {2: "count", 3: "lowest", 5: "closing"},
    7: {3: "count", 4: "lowest", 6: "closing"},
    18: {14: "count", 15: "lowest", 17: "closing"},
}
"""Where the field's ego states, and three stacked frames of one, carry a function of the peers."""


def reference(seen: Observations, row: int, name: str) -> float:
    """The derived feature of one frame, peer by peer."""
    slots = seen.mask.shape[1]
    peers = [seen.peers[row, slot] for slot in range(slots) if seen.mask[row, slot]]
    if name == "count":
        return len(peers) / int(slots)
    values: list[float] = [float(peer[ACCEL] if name == "lowest" else -peer[REL_SPEED]) for peer in peers]
    values.append(0.0)
    return min(values) if name == "lowest" else max(values)


def consistent(seen: Observations, layout: dict[int, str]) -> Observations:
    ego = seen.ego.copy()
    for column, name in layout.items():
        ego[:, column] = [reference(seen, row, name) for row in range(len(seen))]
    return Observations(ego, seen.peers, seen.mask)


def gentle(n: int = 180, *, ego: int = 5, most: int = 2, seed: int = 0) -> Observations:
    """Frames in which nobody brakes hard."""
    seen = strategies.frames(n, seed, ego=ego, most=most)
    peers = np.clip(seen.peers, -0.4, 1)
    return Observations(seen.ego, peers, seen.mask)


def lacking_hard_braking(seen: Observations, added: Observations) -> int:
    hard = int(hard_braking(seen).sum() + hard_braking(added).sum())
    return int(np.ceil(ENOUGH_HARD_BRAKING * len(seen))) - hard


@pytest.mark.parametrize("ego", LAYOUTS)
def test_derived_columns_are_recognized_and_recomputed(ego: int) -> None:
    seen = consistent(gentle(ego=ego), LAYOUTS[ego])
    derived = derived_columns(seen)
    assert derived == {column: NAMES[name] for column, name in LAYOUTS[ego].items()}
    added, base = augment(seen, derived, seed=1)
    for row in range(len(added)):
        for column in range(ego):
            if column in derived:
                expected = reference(added, row, LAYOUTS[ego][column])
                assert added.ego[row, column] == pytest.approx(expected, abs=1e-6)
            else:
                assert added.ego[row, column] == seen.ego[base[row], column]


@given(wrong=st.integers(0, 179), column=st.sampled_from([3, 4]))
@settings(max_examples=20, deadline=None)
def test_a_column_that_differs_in_one_frame_is_not_derived(wrong: int, column: int) -> None:
    seen = consistent(gentle(), LAYOUTS[5])
    seen.ego[wrong, column] += 0.01
    assert column not in derived_columns(seen)


def test_a_constant_is_not_taken_for_a_number_of_peers() -> None:
    """Every frame has one peer and the ego's last feature happens to be 1/8."""
    seen = gentle(50, most=8)
    mask = np.zeros_like(seen.mask)
    mask[:, 0] = True
    ego = seen.ego.copy()
    ego[:, 4] = 1 / 8
    assert derived_columns(Observations(ego, seen.peers, mask)) == {}


@given(n=st.integers(1, 200), most=st.integers(1, 8), slots=st.integers(1, 8), seed=strategies.seeds)
@settings(max_examples=60, deadline=None)
def test_every_peer_count_gets_its_quota(n: int, most: int, slots: int, seed: int) -> None:
    seen = strategies.frames(n, seed, slots=slots, most=min(most, slots))
    added, base = augment(seen, {}, seed)
    if not seen.mask.any():
        assert len(added) == len(base) == 0
        return
    quota = max(n // (slots + 1), 1)
    had = np.bincount(seen.counts, minlength=slots + 1)
    # Frames added for hard braking come last.
    filling = int(np.maximum(quota - had, 0).sum())
    assert len(added) == filling + max(lacking_hard_braking(seen, added[:filling]), 0)
    added, base = added[:filling], base[:filling]
    now = had + np.bincount(added.counts, minlength=slots + 1)
    np.testing.assert_array_equal(now, np.maximum(had, quota))
    assert not added.peers[~added.mask].any()
    assert ((base >= 0) & (base < n)).all()


def test_own_peers_come_first_and_strangers_stay_in_the_recorded_range() -> None:
    # Enough hard braking is recorded, so none is added and peers are comparable.
    seen = strategies.frames(180, most=2)
    seen.peers[seen.mask, ACCEL] = -0.6
    added, base = augment(seen, {}, seed=3)
    everyone = seen.peers[seen.mask]
    slack = JITTER * np.ptp(everyone, axis=0) + 1e-6
    for row in range(len(added)):
        own = seen.peers[base[row]][seen.mask[base[row]]]
        shown = added.peers[row][added.mask[row]]
        shared = min(len(own), len(shown))
        np.testing.assert_array_equal(shown[:shared], own[:shared])
        assert (shown >= everyone.min(axis=0) - slack).all() and (shown <= everyone.max(axis=0) + slack).all()
    # Put beside their origin, strangers are not copies.
    strangers = added.peers[:, 3][added.mask[:, 3]]
    distance = np.abs(strangers[:, None, :ACCEL] - everyone[None, :, :ACCEL]).max(axis=2).min(axis=1)
    assert np.count_nonzero(distance) > 0.9 * len(distance)


def test_hard_braking_is_added_where_it_is_lacking() -> None:
    seen = gentle()
    assert not hard_braking(seen).any()
    added, base = augment(seen, {}, seed=0)
    braking = hard_braking(added)
    with_peers = added.counts > 0
    assert 0.35 < braking[with_peers].mean() < 0.65
    hard = added.peers[:, :, ACCEL] < HARD_BRAKING
    assert (hard.sum(axis=1) <= 1).all()
    assert added.peers[:, :, ACCEL].min() >= np.float32(FULL_BRAKING)
    # It closes in: where it is the base frame's own peer, its relative speed has dropped and nothing else moved.
    checked = 0
    for row in np.flatnonzero(braking):
        own = seen.peers[base[row]][seen.mask[base[row]]]
        slot = int(np.flatnonzero(hard[row])[0])
        if slot < len(own):
            before, after = own[slot], added.peers[row, slot]
            assert after[REL_SPEED] <= before[REL_SPEED]
            assert before[REL_SPEED] - after[REL_SPEED] <= -after[ACCEL] / 3 + 1e-6
            others = [i for i in range(6) if i not in (ACCEL, REL_SPEED)]
            np.testing.assert_array_equal(after[others], before[others])
            checked += 1
    assert checked > 5


def test_no_hard_braking_is_added_where_there_is_enough() -> None:
    seen = gentle()
    rows = np.flatnonzero(seen.counts > 0)[: int(np.ceil(ENOUGH_HARD_BRAKING * len(seen))) + 1]
    for row in rows:
        seen.peers[row, int(np.argmax(seen.mask[row])), ACCEL] = -0.8
    added, base = augment(seen, {}, seed=0)
    was = hard_braking(seen)
    invented = [
        row
        for row in range(len(added))
        if not was[base[row]] and added.counts[row] <= seen.counts[base[row]] and hard_braking(added)[row]
    ]
    assert invented == []


def crowded(n: int = 540, *, ego: int = 6) -> Observations:
    """Every peer count has its share already, peers stand in any slot, and nobody brakes hard."""
    seen = gentle(n, ego=ego, most=8)
    rng = np.random.default_rng(9)
    mask = rng.permuted(np.arange(8) < (np.arange(n) % 9)[:, None], axis=1)
    return consistent(
        Observations(seen.ego, np.clip(rng.normal(0.1, 0.2, seen.peers.shape), -0.4, 1).astype(np.float32), mask),
        LAYOUTS[ego],
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("recorded", [0, 10, 26])
def test_hard_braking_is_added_where_no_peer_count_is_missing(recorded: int, seed: int) -> None:
    seen = crowded()
    for row in np.flatnonzero(seen.counts > 0)[:recorded]:
        seen.peers[row, int(np.argmax(seen.mask[row])), ACCEL] = -0.8
    seen = consistent(seen, LAYOUTS[6])
    added, base = augment(seen, derived_columns(seen), seed)
    assert len(added) == 27 - recorded == len(set(base.tolist()))
    assert hard_braking(added).all() and (added.counts > 0).all()
    np.testing.assert_array_equal(added.counts, seen.counts[base])
    for row in range(len(added)):
        before, after = seen.peers[base[row]][seen.mask[base[row]]], added.peers[row][added.mask[row]]
        changed = np.argwhere(before != after)
        assert len(set(changed[:, 0].tolist())) == 1 and set(changed[:, 1].tolist()) == {REL_SPEED, ACCEL}
        assert FULL_BRAKING - 1e-6 <= after[changed[0, 0], ACCEL] < HARD_BRAKING
        for column in range(6):
            name = LAYOUTS[6].get(column)
            expected = seen.ego[base[row], column] if name is None else reference(added, row, name)
            assert added.ego[row, column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("features", [1, 4, 9])
def test_peers_of_other_features_are_added_but_never_made_to_brake(features: int) -> None:
    seen = strategies.frames(180, peer=features, most=2)
    seen.ego[:, 0] = seen.counts / 8
    derived = derived_columns(seen)
    assert derived == {0: "number of peers"}
    added, _ = augment(seen, derived, seed=0)
    assert set(added.counts) == set(range(3, 9))
    np.testing.assert_allclose(added.ego[:, 0], added.counts / 8)
    everyone = seen.peers[seen.mask]
    slack = JITTER * np.ptp(everyone, axis=0) + 1e-6
    assert (added.peers[added.mask] >= everyone.min(axis=0) - slack).all()
    assert not hard_braking(added).any()


def test_the_seed_decides() -> None:
    seen = gentle()
    (one, of_one), (same, of_same), (other, _) = (augment(seen, {}, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.peers, same.peers)
    np.testing.assert_array_equal(of_one, of_same)
    assert not np.array_equal(one.peers, other.peers)


def test_what_was_recorded_is_left_alone() -> None:
    seen = consistent(gentle(), LAYOUTS[5])
    before = [array.copy() for array in (seen.ego, seen.peers, seen.mask)]
    augment(seen, derived_columns(seen), seed=0)
    for array, copy in zip((seen.ego, seen.peers, seen.mask), before, strict=True):
        np.testing.assert_array_equal(array, copy)
