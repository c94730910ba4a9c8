"""Random policies, frames and drives, and the datasets made of them: for hypothesis and for the fixtures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from quant.dataset import Dataset, Recording, build_dataset
from quant.policy import (
    ActionSpace,
    Activation,
    Box,
    Dense,
    Discrete,
    Observations,
    Policy,
    Pooling,
    policy_digest,
    save_policy,
)
from quant.tracks.candidate import Candidate
from quant.tracks.ptq import run_ptq

REAL = Path(__file__).parents[3] / "shared" / "real"
"""Recorded drives and real checkpoints, where they are at hand."""

UNIT_BOX = Box((0.0,), (1.0,))
activations: st.SearchStrategy[Activation] = st.sampled_from(get_args(Activation))
poolings: st.SearchStrategy[Pooling] = st.sampled_from(get_args(Pooling))
seeds = st.integers(0, 2**32 - 1)


def layers(
    rng: np.random.Generator, inputs: int, shape: Sequence[tuple[int, Activation]], gain: float = 1.0
) -> tuple[Dense, ...]:
    """Dense layers of the given (outputs, activation), He-initialized times ``gain``."""
    made = []
    for outputs, activation in shape:
        weight = rng.normal(0, gain * np.sqrt(2 / inputs), (outputs, inputs))
        bias = rng.normal(0, 0.1, outputs)
        made.append(Dense(weight.astype(np.float32), bias.astype(np.float32), activation))
        inputs = outputs
    return tuple(made)


def policy(
    seed: int = 0,
    *,
    encoder: Sequence[tuple[int, Activation]] = ((16, "relu"), (8, "relu")),
    hidden: Sequence[tuple[int, Activation]] = ((16, "tanh"),),
    ego: int = 5,
    peer: int = 6,
    pooling: Pooling = "max",
    space: ActionSpace = UNIT_BOX,
    max_peers: int = 8,
    gain: float = 1.0,
) -> Policy:
    """A policy with random weights; with a ``gain`` of some, activations saturate."""
    rng = np.random.default_rng(seed)
    phi = layers(rng, peer, encoder, gain)
    head = layers(rng, phi[-1].outputs + ego, [*hidden, (space.width, "linear")], gain)
    return Policy(phi, head, pooling, space, max_peers)


def frames(n: int, seed: int = 0, *, ego: int = 5, peer: int = 6, slots: int = 8, most: int = 8) -> Observations:
    """N frames with 0 to ``most`` peers in random slots; absent slots hold what must never be read."""
    rng = np.random.default_rng(seed)
    mask = rng.permuted(np.arange(slots) < rng.integers(0, most + 1, (n, 1)), axis=1)
    peers = rng.normal(0.1, 0.5, (n, slots, peer))
    peers[~mask] = 1e3
    return Observations(rng.normal(0.2, 0.6, (n, ego)).astype(np.float32), peers.astype(np.float32), mask)


def recording(
    n: int = 600, seed: int = 0, *, block: int = 50, name: str = "drive.npz", most: int = 2, **sizes: int
) -> Recording:
    """A drive of ``n`` frames in blocks of ``block``."""
    return Recording(
        name, "drive", frames(n, seed, most=most, **sizes), np.arange(n, dtype=np.int64) // block, "0" * 64
    )


def dataset_of(made: Policy, n: int = 600, seed: int = 0) -> Dataset:
    """The shared dataset of a random drive."""
    drive = recording(n, seed, ego=made.ego_size, peer=made.peer_size, slots=made.max_peers, most=made.max_peers)
    return build_dataset(made, policy_digest(made), [drive], seed)


def ptq_of(made: Policy, dataset: Dataset) -> Candidate:
    """The candidate of the track ``ptq``."""
    return run_ptq(made, dataset)


def write_drive(path: Path, seen: Observations, **others: Any) -> Path:
    """The ``.npz`` a user records."""
    times = np.arange(len(seen)) * 100
    arrays: dict[str, Any] = {
        "t_ms": times,
        "ego": seen.ego,
        "peers": seen.peers,
        "peer_mask": seen.mask.astype(np.float32),
    }
    np.savez(path, **arrays | others)
    return path


def write_inputs(folder: Path, made: Policy | None = None) -> Path:
    """What a small run is made of: ``policy.npz`` (by default of ego 6 and one continuous action) and ``drive.npz``."""
    save_policy(made or policy(2, ego=6), folder / "policy.npz")
    write_drive(folder / "drive.npz", frames(700, 1, ego=6, slots=4, most=3))
    return folder


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """One or two components, their bounds on either side of zero or both on one."""
    bound = st.floats(-4, 4, width=32).map(lambda x: round(x, 3))
    pairs = draw(st.lists(st.tuples(bound, st.floats(0.1, 4).map(lambda x: round(x, 3))), min_size=1, max_size=2))
    return Box(tuple(low for low, _ in pairs), tuple(low + width for low, width in pairs))


spaces: st.SearchStrategy[ActionSpace] = st.integers(1, 5).map(Discrete) | boxes()


@st.composite
def shapes(draw: st.DrawFn, least: int) -> list[tuple[int, Activation]]:
    """(outputs, activation) of ``least`` to three layers."""
    return draw(st.lists(st.tuples(st.integers(1, 12), activations), min_size=least, max_size=3))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies of every pooling, activation and action space, with odd sizes."""
    return policy(
        draw(seeds),
        encoder=draw(shapes(1)),
        hidden=draw(shapes(0)),
        ego=draw(st.integers(1, 7)),
        peer=draw(st.sampled_from([6, 6, 1, 9])),
        pooling=draw(poolings),
        space=draw(spaces),
        max_peers=draw(st.sampled_from([8, 1, 3])),
        gain=draw(st.sampled_from([1.0, 4.0])),
    )


def frames_for(made: Policy, n: int, seed: int = 0) -> Observations:
    """Frames of a policy's sizes."""
    return frames(n, seed, ego=made.ego_size, peer=made.peer_size, slots=made.max_peers, most=made.max_peers)
