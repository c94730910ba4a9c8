"""Splitting by blocks, nothing lost, nothing leaked, and what the float policy makes of every row."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.dataset import Dataset, Recording, Split, build_dataset
from quant.dataset.build import SHARES, assign_splits
from quant.errors import InputError
from quant.policy import Observations, Policy, policy_digest
from tests.tracks import strategies

POLICY = strategies.policy()


def built(*recordings: Recording, policy: Policy = POLICY, seed: int = 0) -> Dataset:
    return build_dataset(policy, policy_digest(policy), recordings, seed)


def traced(n: int = 600, seed: int = 0, name: str = "drive.npz", block: int = 50) -> Recording:
    """A drive in which every number says its frame: ego[0] of the ego and every feature of its peers."""
    made = strategies.recording(n, seed, name=name, block=block)
    seen = made.observations
    ego, peers = seen.ego.copy(), seen.peers.copy()
    ego[:, 0] = np.arange(n)
    peers[:] = np.arange(n)[:, None, None]
    return replace(made, observations=Observations(ego, peers, seen.mask))


@given(blocks=st.lists(st.integers(1, 40), min_size=3, max_size=60), seed=strategies.seeds, first=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_block_goes_to_one_split_whole_and_shares_hold(blocks: list[int], seed: int, first: int) -> None:
    numbers = np.repeat(first + 3 * np.arange(len(blocks)), blocks)
    made = replace(strategies.recording(sum(blocks)), block=numbers)
    splits = assign_splits(made, seed)
    assert len(splits) == sum(blocks)
    per_split = {split: set(numbers[splits == split]) for split in Split}
    assert sum(len(found) for found in per_split.values()) == len(blocks)
    for split, share in SHARES.items():
        # Calibration and held-out take their share in whole blocks, training what is left.
        whole = max(math.floor(share * len(blocks)), 1)
        assert len(per_split[split]) - whole in ((0,) if split != Split.TRAINING else (0, 1, 2))


def test_shares_are_a_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == set(Split)


def test_blocks_are_dealt_by_the_seed() -> None:
    made = strategies.recording(3000)
    splits = [assign_splits(made, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


@pytest.mark.parametrize("frames", [1, 50, 100])
def test_a_drive_of_fewer_than_three_blocks_is_refused(frames: int) -> None:
    with pytest.raises(InputError) as caught:
        built(strategies.recording(frames, name="short.npz"))
    assert caught.value.where == "short.npz" and "longer" in str(caught.value.hint)


def test_no_recordings_are_refused() -> None:
    with pytest.raises(InputError, match="no frames"):
        built()


def test_no_frame_is_lost_and_none_is_in_two_splits() -> None:
    made = built(strategies.recording(600, 1), strategies.recording(430, 2, block=70))
    recorded = np.concatenate([made.rows(split, augmented=False) for split in Split])
    pairs = np.stack([made.column("origin")[recorded], made.column("frame")[recorded]], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 600 + 430
    everything = np.concatenate([made.rows(split) for split in Split])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(made)))
    blocks = np.stack([made.column(name) for name in ("origin", "block", "split")], axis=1)
    per_block = np.unique(blocks, axis=0)
    assert len(per_block) == len(np.unique(per_block[:, :2], axis=0))


def test_augmented_rows_are_made_of_frames_of_their_own_split_only() -> None:
    drives = [traced(600, 1), traced(500, 2)]
    made = built(*drives)
    split_of: dict[tuple[int, int], Split] = {}
    for number in range(len(drives)):
        for split in Split:
            rows = made.rows(split, augmented=False)
            rows = rows[made.column("origin")[rows] == number]
            split_of |= {(number, int(frame)): split for frame in made.column("frame")[rows]}
    for split in Split:
        rows = made.rows(split, augmented=True)
        assert len(rows) > 10
        seen = made.observations(rows)
        for row, ego, peers, mask in zip(rows, seen.ego, seen.peers, seen.mask, strict=True):
            number, frame = int(made.column("origin")[row]), int(made.column("frame")[row])
            assert split_of[number, frame] == split
            assert ego[0] == frame
            assert made.column("block")[row] == drives[number].block[frame]
            own = int(drives[number].observations.mask[frame].sum())
            assert (peers[mask][:own, 0] == frame).all()


def test_peers_never_cross_from_one_split_to_another() -> None:
    """Peers carry the number of their split, a hundred apart: noise and braking move them by a few."""
    plain = strategies.recording(600, 3)
    splits = assign_splits(plain, 0)
    peers = np.broadcast_to(100 * splits[:, None, None].astype(np.float32), plain.observations.peers.shape).copy()
    made = built(replace(plain, observations=replace(plain.observations, peers=peers)))
    for split in Split:
        rows = made.rows(split)
        assert np.ptp(made.column("split")[rows]) == 0
        shown = made.observations(rows)
        found = np.rint(shown.peers[shown.mask][:, 0] / 100)
        assert (found == split).all()


def test_outputs_are_the_float_policys_own() -> None:
    made = built(strategies.recording(600, 1))
    rows = np.arange(len(made))
    seen = made.observations(rows)
    forward = POLICY.forward(seen)
    np.testing.assert_allclose(made.policy_inputs, forward.head_inputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.policy_outputs, forward.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.peer_outputs, forward.embeddings[seen.mask], rtol=1e-5, atol=1e-6)
    assert {array.dtype.name for name, array in made.arrays().items() if "index" not in name} == {"float32"}
    assert made.index.dtype == np.int32


@given(seed=strategies.seeds, picks=st.lists(st.integers(0, 10**6), max_size=40))
@settings(max_examples=40, deadline=None)
def test_observations_give_back_the_same_sets_of_peers(seed: int, picks: list[int]) -> None:
    drive = strategies.recording(200, seed, most=8)
    made = built(drive)
    recorded = np.concatenate([made.rows(split, augmented=False) for split in Split])
    rows = recorded[np.array(picks, np.int64) % len(recorded)]
    seen = made.observations(rows)
    original = drive.observations[made.column("frame")[rows].astype(np.int64)]
    np.testing.assert_array_equal(seen.ego, original.ego)
    for shown, shown_mask, own, own_mask in zip(seen.peers, seen.mask, original.peers, original.mask, strict=True):
        np.testing.assert_array_equal(shown[shown_mask], own[own_mask])
        assert not shown[~shown_mask].any()
    np.testing.assert_array_equal(
        made.peer_inputs[made.peer_rows(np.unique(rows))], made.observations(np.unique(rows)).peers[
            made.observations(np.unique(rows)).mask
        ]
    )  # fmt: skip


def test_a_drive_that_never_meets_a_peer_makes_a_dataset() -> None:
    drive = strategies.recording(600)
    empty = replace(drive.observations, mask=np.zeros_like(drive.observations.mask))
    made = built(replace(drive, observations=empty))
    assert len(made) == 600 and made.peer_inputs.shape == (0, 6) and made.peer_outputs.shape == (0, 8)
    assert not made.policy_inputs[:, :8].any()


def test_equal_inputs_give_equal_datasets_and_the_seed_matters() -> None:
    drives = [strategies.recording(600, 1), strategies.recording(600, 2)]
    one, same, other = (built(*drives, seed=seed) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest


def test_two_drives_of_one_length_are_split_and_augmented_differently() -> None:
    drive = strategies.recording(600, 1)
    made = built(drive, drive)
    splits = [made.index[(made.column("origin") == number) & (made.column("augmented") == 0)] for number in (0, 1)]
    by_frame = [rows[np.argsort(rows[:, 3]), 0] for rows in splits]
    assert not np.array_equal(*by_frame)
