"""From recordings to the shared dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.dataset.augmentation import augment
from quant.dataset.filling import fill
from quant.dataset.recording import Recording
from quant.dataset.storage import Dataset, Made, Origin, Split
from quant.errors import InputError
from quant.observation.checks import bound_findings, findings
from quant.observation.contract import Contract
from quant.observation.findings import Finding, refuse
from quant.observation.observations import Observations
from quant.observation.resolve import Bounds, Sizes, resolve
from quant.observation.statements import file_findings
from quant.policy.policy import Policy

SHARES = {Split.CALIBRATION: 0.2, Split.TRAINING: 0.5, Split.HELD_OUT: 0.3}
"""Share of each recording's blocks that goes to a split."""

FILLED = "filled"
"""Name and kind of the origin of filled frames."""
MOST_IN_COMMON = 0.05
"""Share of a recording's frames with peers above which another recording that holds them too is the same drive."""


FILLED_FRAMES = 6000
"""Frames made to fill the range, at the most; never more than were seen, and never less than `LEAST_FILLED`."""
LEAST_FILLED = 600


def contract_of(
    policy: Policy,
    recordings: Sequence[Recording],
    given: Mapping[str, Any] | None = None,
    world: Bounds | None = None,
    *,
    assume: bool = False,
) -> Contract:
    """The contract of a policy's input: what its checkpoint and a world state, recordings show and a user says."""
    sizes = Sizes(policy.ego_size, policy.peer_size, policy.max_peers)
    seen = [recording.series for recording in recordings]
    return resolve(sizes, policy.bounds, seen, given, world=world, assume=assume)


def held_to_contract(
    policy: Policy,
    recordings: Sequence[Recording],
    given: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
    world: Bounds | None = None,
    known: Contract | None = None,
) -> tuple[Finding, ...]:
    """What of these recordings does not hold to the contract of the policy's input, as far as it may pass.

    Args:
        policy: in float.
        recordings: drives and rollouts.
        given: what the user says of the observation.
        allow: names of findings that may pass although they are certain.
        world: what the world's own observation space states.
        known: the contract of a run that these are later drives for: its stack is the policy's.

    Raises:
        InputError: something certain is not allowed by its name.
    """
    contract = contract_of(policy, recordings, given, world)
    if known is not None and [one.copy_of for one in known.ego] != [one.copy_of for one in contract.ego]:
        bounds = [(one.low, one.high) for one in contract.ego]
        ego = tuple(replace(one, low=low, high=high) for one, (low, high) in zip(known.ego, bounds, strict=True))
        contract = replace(contract, ego=ego, preset=known.preset)
    # A recording that was damaged may contradict the very preset that would show how.
    assumed = contract if contract.preset else contract_of(policy, recordings, given, world, assume=True)
    found = list(file_findings(contract_of(policy, recordings, None, world), contract, given))
    for one in recordings:
        if one.kind == "rollout":
            found += bound_findings(one.series, contract, one.name)
            continue
        found += one.findings
        causes = findings(one.series, assumed, one.name, explained=True) if assumed is not contract else ()
        told = {(finding.name, finding.indices) for finding in one.findings}
        more = causes or findings(one.series, contract, one.name)
        found += [finding for finding in more if (finding.name, finding.indices) not in told]
    return refuse(found, allow)


def build_dataset(
    policy: Policy,
    policy_sha256: str,
    recordings: Sequence[Recording],
    seed: int,
    given: Mapping[str, Any] | None = None,
    world: Bounds | None = None,
) -> Dataset:
    """Splits each recording by blocks, augments each split from its own frames only, and lets the float policy answer.

    Each split also gets frames of its own that fill the range which the observation's contract declares.

    Args:
        policy: in float.
        policy_sha256: its digest.
        recordings: drives and rollouts.
        seed: of splitting, augmentation and filling.
        given: what the user says of the observation (`quant.observation.storage.read_given`).
        world: what the world's own observation space states.

    Raises:
        InputError: no recordings, or what `check_recordings` refuses.
    """
    if not recordings:
        raise InputError("no frames to make a dataset of", hint="give a drive (--drive) or a world (--world)")
    check_recordings(recordings)
    parts: list[Observations] = []
    index: list[NDArray[np.int32]] = []
    origins: list[Origin] = []
    assigned = assign_splits(recordings, seed)
    contract = contract_of(policy, recordings, given, world)
    derived = {column: function.name for column, function in contract.functions.items()}
    contract = contract.completed([recording.observations for recording in recordings])
    for number, (recording, splits) in enumerate(zip(recordings, assigned, strict=True)):
        origins.append(Origin(recording.name, recording.kind, recording.sha256, len(recording.observations), derived))
        for split in Split:
            rows = np.flatnonzero(splits == split)
            recorded = recording.observations[rows]
            added, base = augment(recorded, derived, _mix(seed, number, split), contract)
            for observations, frames, made in ((recorded, rows, Made.SEEN), (added, rows[base], Made.AUGMENTED)):
                parts.append(observations)
                columns = (
                    np.full(len(frames), split),
                    np.full(len(frames), number),
                    recording.block[frames],
                    frames,
                    observations.counts,
                    np.full(len(frames), made),
                )
                index.append(np.stack(columns, axis=1).astype(np.int32))
    filled, numbers = _filled(contract, recordings, assigned, seed)
    parts += filled
    index += [
        _filled_index(split, len(recordings), part, frames)
        for (split, frames), part in zip(numbers, filled, strict=True)
    ]
    origins.append(Origin(FILLED, FILLED, contract.digest, sum(map(len, filled)), derived))
    observations = Observations.concatenate(parts)
    forward = policy.forward(observations)
    return Dataset(
        peer_inputs=observations.peers[observations.mask],
        peer_outputs=forward.embeddings[observations.mask],
        policy_inputs=forward.head_inputs,
        policy_outputs=forward.values,
        index=np.concatenate(index),
        origins=tuple(origins),
        policy_sha256=policy_sha256,
        max_peers=policy.max_peers,
        seed=seed,
        contract=contract,
        given=given,
    )


def _filled(
    contract: Contract, recordings: Sequence[Recording], assigned: Sequence[NDArray[np.int64]], seed: int
) -> tuple[list[Observations], list[tuple[Split, NDArray[np.int64]]]]:
    """The filled frames of each split, started from recorded ones of that split alone, and their numbers."""
    seen = sum(len(recording.observations) for recording in recordings)
    count = min(max(seen, LEAST_FILLED), FILLED_FRAMES)
    parts, numbers, first = [], [], 0
    for split, share in SHARES.items():
        own = [one.observations[splits == split] for one, splits in zip(recordings, assigned, strict=True)]
        frames = round(share * count)
        parts.append(fill(contract, frames, _mix(seed, len(recordings), split), Observations.concatenate(own)))
        numbers.append((split, np.arange(first, first + frames)))
        first += frames
    return parts, numbers


def _filled_index(split: Split, origin: int, frames: Observations, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    n = len(frames)
    columns = (
        np.full(n, split),
        np.full(n, origin),
        np.full(n, split),
        numbers,
        frames.counts,
        np.full(n, Made.FILLED),
    )
    return np.stack(columns, axis=1).astype(np.int32)


def check_recordings(recordings: Sequence[Recording], *, complete: bool = True) -> None:
    """Refuses recordings that cannot be split, or whose splits would not be apart.

    Args:
        recordings: what the dataset is to be made of.
        complete: False where a world's rollouts are still to come, which may bring the peers that drives lack.

    Raises:
        InputError: a recording has too few blocks to fill every split, two of them hold the same frames, or, if they
            are complete, too few blocks have peers to give every split some.
    """
    for recording in recordings:
        _check_blocks(recording)
    _check_apart(recordings)
    if complete:
        _check_peers(recordings)


def _check_blocks(recording: Recording) -> None:
    blocks = len(np.unique(recording.block))
    if blocks < len(Split):
        raise InputError(
            f"has {len(recording.observations)} frames in {blocks} blocks",
            where=recording.name,
            expected=f"at least {len(Split)} blocks, one for each of calibration, training and held-out",
            hint="record a longer drive",
        )


def _check_peers(recordings: Sequence[Recording]) -> None:
    names = ", ".join(recording.name for recording in recordings)
    blocks = sum(len(_blocks_with_peers(recording)) for recording in recordings)
    if blocks == 0:
        raise InputError(
            "no frame has a peer: the encoder cannot be calibrated",
            where=names,
            expected=f"peers in at least {len(Split)} blocks, one for each of calibration, training and held-out",
            hint="record a drive among other vehicles; if there were some, check peer_mask",
        )
    if blocks < len(Split):
        raise InputError(
            f"only {blocks} of the blocks have a frame with peers",
            where=names,
            expected=f"peers in at least {len(Split)} blocks, one for each of calibration, training and held-out",
            hint=f"record a longer drive, with peers in at least {len(Split)} blocks",
        )


def _check_apart(recordings: Sequence[Recording]) -> None:
    """A drive given twice would have its training frames judged as held-out ones."""
    hint = "give each drive once, and cuts that do not overlap"
    for one, other in combinations(recordings, 2):
        if one.sha256 == other.sha256:
            raise InputError("are the same recording", where=f"{one.name} and {other.name}", hint=hint)
    if len(recordings) < 2:
        return
    frames = [_frames_with_peers(recording.observations) for recording in recordings]
    distinct = [frozenset(found) for found in frames]
    for one_row, other_row in permutations(range(len(recordings)), 2):
        common = sum(frame in distinct[other_row] for frame in frames[one_row])
        if common > MOST_IN_COMMON * len(frames[one_row]):
            name, other_name = recordings[one_row].name, recordings[other_row].name
            raise InputError(
                f"{common} of the {len(frames[one_row])} frames with peers in {name} are in {other_name} too",
                where=f"{name} and {other_name}",
                expected=f"at most {MOST_IN_COMMON:.0%} in common, as held-out frames must not be trained on",
                hint=hint,
            )


def _frames_with_peers(observations: Observations) -> list[bytes]:
    """Each frame with peers as the bytes of its ego, peers and mask; what absent slots hold does not count."""
    seen = observations[np.flatnonzero(observations.counts)]
    peers = np.where(seen.mask[:, :, None], seen.peers, np.float32(0))
    return [
        ego.tobytes() + others.tobytes() + mask.tobytes()
        for ego, others, mask in zip(seen.ego, peers, seen.mask, strict=True)
    ]


def assign_splits(recordings: Sequence[Recording], seed: int) -> list[NDArray[np.int64]]:
    """For each recording (N,) the split of each frame; a block goes to one split whole.

    Blocks with peers and blocks without are dealt apart, each by the shares. Where a recording has too few blocks with
    peers for every split, those go first to splits that have no peers from the recordings before it.

    Args:
        recordings: which `check_recordings` has passed.
        seed: of the first recording's deal; each following one has the next seed.
    """
    lacking = set(Split)
    assigned = []
    for number, recording in enumerate(recordings):
        splits = _deal(recording, sorted(Split, key=lambda split: split not in lacking), seed + number)
        assigned.append(splits)
        lacking -= {Split(code) for code in splits[recording.observations.mask.any(axis=1)]}
    return assigned


def _deal(recording: Recording, first: Sequence[Split], seed: int) -> NDArray[np.int64]:
    """(N,) splits of one recording; its first blocks with peers go to the splits in the order of ``first``."""
    blocks = np.unique(recording.block)
    sizes = np.maximum(np.floor(np.array(list(SHARES.values())) * len(blocks)).astype(int), 1)
    sizes[Split.TRAINING] += len(blocks) - sizes.sum()
    # The i-th of a split's n blocks stands at i / n: the first three are one of each, any first few hold the shares.
    codes = np.concatenate([np.full(sizes[split], split) for split in first])
    places = np.concatenate([np.arange(sizes[split]) / sizes[split] for split in first])
    codes = codes[np.argsort(places, kind="stable")]
    order = np.random.default_rng(seed).permutation(len(blocks))
    with_peers = np.isin(blocks[order], _blocks_with_peers(recording))
    of_block = np.empty(len(blocks), np.int64)
    of_block[order[with_peers]] = np.sort(codes[: with_peers.sum()])
    of_block[order[~with_peers]] = np.sort(codes[with_peers.sum() :])
    return of_block[np.searchsorted(blocks, recording.block)]


def _blocks_with_peers(recording: Recording) -> NDArray[np.int64]:
    return np.unique(recording.block[recording.observations.mask.any(axis=1)])


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
