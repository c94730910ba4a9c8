"""Splitting by blocks, nothing lost, nothing leaked, and what the float policy makes of every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.dataset import Dataset, Recording, Split, build_dataset, read_drive
from quant.dataset.build import MOST_IN_COMMON, SHARES, assign_splits, check_recordings
from quant.dataset.storage import Made
from quant.errors import InputError
from quant.policy import Observations, Policy, policy_digest
from tests.tracks import strategies

POLICY = strategies.policy()


def built(*recordings: Recording, policy: Policy = POLICY, seed: int = 0) -> Dataset:
    return build_dataset(policy, policy_digest(policy), recordings, seed)


def drive(n: int = 600, seed: int = 0, *, peers_in: Sequence[int] | None = None, **sizes: Any) -> Recording:
    """A drive with a hash of its own; with peers in these blocks only, where given."""
    made = strategies.recording(n, seed, **{"name": f"{seed}.npz", **sizes})
    seen = made.observations
    if peers_in is not None:
        seen = replace(seen, mask=seen.mask & np.isin(made.block, peers_in)[:, None])
    return replace(made, observations=seen, sha256=f"{seed:064}")


def traced(n: int = 600, seed: int = 0, name: str = "drive.npz", block: int = 50) -> Recording:
    """A drive in which every number says its frame: ego[0] of the ego and every feature of its peers."""
    made = strategies.recording(n, seed, name=name, block=block)
    seen = made.observations
    ego, peers = seen.ego.copy(), seen.peers.copy()
    ego[:, 0] = np.arange(n)
    peers[:] = np.arange(n)[:, None, None]
    return replace(made, observations=Observations(ego, peers, seen.mask), sha256=f"{seed:064}")


@given(blocks=st.lists(st.integers(1, 40), min_size=3, max_size=60), seed=strategies.seeds, first=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_block_goes_to_one_split_whole_and_shares_hold(blocks: list[int], seed: int, first: int) -> None:
    numbers = np.repeat(first + 3 * np.arange(len(blocks)), blocks)
    made = replace(strategies.recording(sum(blocks)), block=numbers)
    [splits] = assign_splits([made], seed)
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
    splits = [assign_splits([made], seed)[0] for seed in (1, 1, 2)]
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
    made = built(drive(600, 1), drive(430, 2, block=70))
    recorded = np.concatenate([made.rows(split, Made.SEEN) for split in Split])
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
            rows = made.rows(split, Made.SEEN)
            rows = rows[made.column("origin")[rows] == number]
            split_of |= {(number, int(frame)): split for frame in made.column("frame")[rows]}
    for split in Split:
        rows = made.rows(split, Made.AUGMENTED)
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
    [splits] = assign_splits([plain], 0)
    peers = np.broadcast_to(100 * splits[:, None, None].astype(np.float32), plain.observations.peers.shape).copy()
    made = built(replace(plain, observations=replace(plain.observations, peers=peers)))
    for split in Split:
        # Filled frames may have features from anywhere.
        rows = made.rows(split, Made.SEEN, Made.AUGMENTED)
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
    recorded_drive = strategies.recording(200, seed, most=8)
    made = built(recorded_drive)
    recorded = np.concatenate([made.rows(split, Made.SEEN) for split in Split])
    rows = recorded[np.array(picks, np.int64) % len(recorded)]
    seen = made.observations(rows)
    original = recorded_drive.observations[made.column("frame")[rows].astype(np.int64)]
    np.testing.assert_array_equal(seen.ego, original.ego)
    for shown, shown_mask, own, own_mask in zip(seen.peers, seen.mask, original.peers, original.mask, strict=True):
        np.testing.assert_array_equal(shown[shown_mask], own[own_mask])
        assert not shown[~shown_mask].any()
    np.testing.assert_array_equal(
        made.peer_inputs[made.peer_rows(np.unique(rows))], made.observations(np.unique(rows)).peers[
            made.observations(np.unique(rows)).mask
        ]
    )  # fmt: skip


def test_drives_that_never_meet_a_peer_are_refused_by_name() -> None:
    lonely = [drive(600, 1, peers_in=()), drive(400, 2, peers_in=())]
    with pytest.raises(InputError, match="no frame has a peer: the encoder cannot be calibrated") as caught:
        built(*lonely)
    assert caught.value.where == "1.npz, 2.npz" and "3 blocks" in str(caught.value.expected)


def test_a_drive_without_peers_beside_one_with_peers_is_welcome() -> None:
    made = built(drive(600, 1, peers_in=()), drive(600, 2))
    assert all((made.column("peers")[made.rows(split)] > 0).any() for split in Split)


@given(with_peers=st.sets(st.integers(0, 19), min_size=3), seed=strategies.seeds)
@settings(max_examples=60, deadline=None)
def test_blocks_with_peers_are_dealt_by_the_shares(with_peers: set[int], seed: int) -> None:
    made = drive(1000, peers_in=sorted(with_peers))
    [splits] = assign_splits([made], seed)
    for split, share in SHARES.items():
        assert len(np.unique(made.block[splits == split])) == share * 20
        has = np.unique(made.block[(splits == split) & made.observations.mask.any(axis=1)])
        assert len(has) >= 1
        assert abs(len(has) - share * len(with_peers)) <= 1.5


@pytest.mark.parametrize("blocks", [(5,), (0, 11)])
def test_peers_in_fewer_than_three_blocks_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"only {len(blocks)} of the blocks") as caught:
        built(drive(600, 1, peers_in=blocks), drive(600, 2, peers_in=()))
    assert caught.value.where == "1.npz, 2.npz"
    assert "longer drive" in str(caught.value.hint) and "at least 3 blocks" in str(caught.value.hint)


@pytest.mark.parametrize("blocks", [((5,), (0,), (11,)), ((5, 6), (), (0,)), ((3,), (4, 9)), ((), (1, 2, 3))])
def test_recordings_supply_each_other_the_splits_they_lack(blocks: tuple[tuple[int, ...], ...]) -> None:
    for seed in range(5):
        made = built(*(drive(600, number, peers_in=has) for number, has in enumerate(blocks)), seed=seed)
        for split in Split:
            assert made.column("peers")[made.rows(split, Made.SEEN)].any()


def test_drives_may_lack_peers_where_a_world_is_to_bring_them() -> None:
    check_recordings([drive(600, 1, peers_in=())], complete=False)
    with pytest.raises(InputError, match="blocks"):
        check_recordings([drive(100, 1, peers_in=())], complete=False)


def test_a_drive_given_twice_is_refused() -> None:
    once = drive(600, 1, name="monday.npz", peers_in=())
    with pytest.raises(InputError, match="the same recording") as caught:
        built(once, drive(600, 2), replace(once, name="tuesday.npz"))
    assert caught.value.where == "monday.npz and tuesday.npz"


def cut(made: Recording, first: int, last: int, name: str) -> Recording:
    rows = slice(first, last)
    return replace(
        made, name=name, observations=made.observations[rows], block=np.arange(last - first) // 50, sha256="f" * 64
    )


@pytest.mark.parametrize(("first", "last"), [(0, 600), (500, 1000), (550, 700), (580, 700), (0, 200)])
@pytest.mark.parametrize("swapped", [False, True])
def test_overlapping_cuts_of_a_drive_are_refused(first: int, last: int, swapped: bool) -> None:
    made = drive(1000, 1)
    pair = [cut(made, 0, 600, "morning.npz"), replace(cut(made, first, last, "noon.npz"), sha256="e" * 64)]
    # What is never read makes no other frame of it.
    seen = pair[1].observations
    pair[1] = replace(pair[1], observations=replace(seen, peers=np.where(seen.mask[:, :, None], seen.peers, -7)))
    with pytest.raises(InputError, match="frames with peers in") as caught:
        built(*(reversed(pair) if swapped else pair))
    assert "morning.npz" in str(caught.value.where) and "noon.npz" in str(caught.value.where)


def test_a_few_common_frames_and_any_without_peers_are_no_overlap() -> None:
    one, other = drive(600, 1), drive(600, 2)
    few = np.flatnonzero(one.observations.mask.any(axis=1) & other.observations.mask.any(axis=1))
    few = few[: int(MOST_IN_COMMON * other.observations.mask.any(axis=1).sum())]
    idle = np.flatnonzero(~one.observations.mask.any(axis=1) & ~other.observations.mask.any(axis=1))
    assert len(few) > 10 and len(idle) > 50
    for rows in (few, idle):
        for name in ("ego", "peers", "mask"):
            getattr(other.observations, name)[rows] = getattr(one.observations, name)[rows]
    check_recordings([one, other])
    for name in ("ego", "peers", "mask"):
        getattr(other.observations, name)[:60] = getattr(one.observations, name)[:60]
    with pytest.raises(InputError, match="frames with peers"):
        check_recordings([one, other])


@pytest.mark.skipif(not strategies.REAL.is_dir(), reason="no recorded drives at hand")
@pytest.mark.parametrize("ego", [5, 6])
def test_two_real_drives_are_apart_and_fill_every_split(ego: int) -> None:
    policy = strategies.policy(ego=ego)
    drives = [read_drive(strategies.REAL / f"drive_{name}_ego{ego}.npz", policy) for name in "ab"]
    check_recordings(drives)
    for made in ([drives[0]], [drives[1]], drives):
        for split in Split:
            assert any(
                recording.observations.mask[splits == split].any()
                for recording, splits in zip(made, assign_splits(made, 0), strict=True)
            )
    with pytest.raises(InputError, match="frames with peers"):
        check_recordings([drives[1], cut(drives[1], 4600, 4984, "tail.npz")])


def test_equal_inputs_give_equal_datasets_and_the_seed_matters() -> None:
    drives = [drive(600, 1), drive(600, 2)]
    one, same, other = (built(*drives, seed=seed) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest


def test_two_drives_of_one_length_are_split_differently() -> None:
    made = built(drive(600, 1), drive(600, 2))
    splits = [made.index[(made.column("origin") == number) & (made.column("made") == 0)] for number in (0, 1)]
    by_frame = [rows[np.argsort(rows[:, 3]), 0] for rows in splits]
    assert not np.array_equal(*by_frame)


def test_features_that_never_vary_are_named() -> None:
    made = drive()
    seen = made.observations
    ego, peers = seen.ego.copy(), seen.peers.copy()
    ego[:, 2], peers[:, :, 3] = 0.25, 0
    # Absent peers are nobody's; of the held-out frames no track learns.
    peers[~seen.mask] = 7
    flat = built(replace(made, observations=Observations(ego, peers, seen.mask)))
    assert flat.unvaried == ("peers' rel_heading", "ego feature 2")
    assert built(made).unvaried == ()
    rows = flat.rows(Split.HELD_OUT)
    moved = flat.policy_inputs.copy()
    moved[rows, -1], moved[rows, POLICY.embedding_size + 2] = 1, np.arange(len(rows))
    assert replace(flat, policy_inputs=moved).unvaried == flat.unvaried


@pytest.mark.parametrize(("still", "named"), [
    ((0,), ("ego's speed",)), ((0, 2), ("ego's speed",)), ((2,), ("ego's speed, 1 back",)), ((4,), ("ego feature 4",)),
])  # fmt: skip
def test_what_never_varies_has_the_name_of_the_contract(still: Sequence[int], named: tuple[str, ...]) -> None:
    seen = drive()
    ego = seen.observations.ego.copy()
    ego[:, still] = 0.25
    flat = built(replace(seen, observations=replace(seen.observations, ego=ego)))
    columns = list(flat.contract.ego)
    columns[0], columns[2] = replace(columns[0], name="speed"), replace(columns[2], name="speed", copy_of=0)
    # A frozen copy of what moves is a fault of its own; of what stands still it says nothing new.
    assert replace(flat, contract=replace(flat.contract, ego=tuple(columns))).unvaried == named
