"""From recordings to the shared dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.dataset.augmentation import augment, derived_columns
from quant.dataset.recording import Recording
from quant.dataset.storage import Dataset, Origin, Split
from quant.errors import InputError
from quant.policy.observations import Observations
from quant.policy.policy import Policy

SHARES = {Split.CALIBRATION: 0.2, Split.TRAINING: 0.5, Split.HELD_OUT: 0.3}
"""Share of each recording's blocks that goes to a split."""


def build_dataset(policy: Policy, policy_sha256: str, recordings: Sequence[Recording], seed: int) -> Dataset:
    """Splits each recording by blocks, augments each split from its own frames only, and lets the float policy answer.

    Raises:
        InputError: no recordings, or one too short to have a block in every split.
    """
    if not recordings:
        raise InputError("no frames to make a dataset of", hint="give a drive (--drive) or a world (--world)")
    parts: list[Observations] = []
    index: list[NDArray[np.int32]] = []
    origins: list[Origin] = []
    for number, recording in enumerate(recordings):
        derived = derived_columns(recording.observations)
        origins.append(Origin(recording.name, recording.kind, recording.sha256, len(recording.observations), derived))
        splits = assign_splits(recording, seed + number)
        for split in Split:
            rows = np.flatnonzero(splits == split)
            recorded = recording.observations[rows]
            added, base = augment(recorded, derived, seed=_mix(seed, number, split))
            for observations, frames, augmented in ((recorded, rows, 0), (added, rows[base], 1)):
                parts.append(observations)
                columns = (
                    np.full(len(frames), split),
                    np.full(len(frames), number),
                    recording.block[frames],
                    frames,
                    observations.counts,
                    np.full(len(frames), augmented),
                )
                index.append(np.stack(columns, axis=1).astype(np.int32))
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
    )


def assign_splits(recording: Recording, seed: int) -> NDArray[np.int64]:
    """(N,) the split of each frame; a block goes to one split whole.

    Raises:
        InputError: the recording has too few blocks to fill every split.
    """
    blocks = np.unique(recording.block)
    if len(blocks) < len(Split):
        raise InputError(
            f"has {len(recording.observations)} frames in {len(blocks)} blocks",
            where=recording.name,
            expected=f"at least {len(Split)} blocks, one for each of calibration, training and held-out",
            hint="record a longer drive",
        )
    order = np.random.default_rng(seed).permutation(len(blocks))
    sizes = np.maximum(np.floor(np.array(list(SHARES.values())) * len(blocks)).astype(int), 1)
    sizes[Split.TRAINING] += len(blocks) - sizes.sum()
    of_block = np.empty(len(blocks), np.int64)
    of_block[order] = np.repeat(list(SHARES), sizes)
    return of_block[np.searchsorted(blocks, recording.block)]


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
