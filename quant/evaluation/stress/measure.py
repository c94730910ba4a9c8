"""One chunk of frames: the candidates held against the float policy on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.statistics import Bits
from quant.evaluation.stress.found import BEYOND, FALSE, MISSED, SPREAD, WORST, Found
from quant.evaluation.stress.frames import Chunk, Sampling
from quant.evaluation.stress.margins import slack_of
from quant.evaluation.stress.settled import settled
from quant.observation.contract import Contract, whose
from quant.observation.observations import F32, Observations
from quant.policy.policy import Policy
from quant.policy.sides import Sides, sides_of
from quant.runners import FloatRunner, Int8Runner
from quant.tracks.candidate import Affine, Candidate, code_limits

SAMPLE = 128
"""Frames of a chunk of low-discrepancy points on which it is looked whether float is settled."""
KEPT_WORST = 8
"""Frames kept of each number of peers: the search begins with them."""
KEPT_MISSED = 64
"""Frames kept of missed actions, and of false ones."""


@dataclass(frozen=True)
class Trial:
    """What is held against what, and where.

    Attributes:
        policy: in float.
        candidates: by track.
        sampling: what the frames are made of.
        span: (A,) what a difference is a share of: a Box's range, or the range of a Discrete's logits.
    """

    policy: Policy
    candidates: Mapping[str, Candidate]
    sampling: Sampling
    span: NDArray[np.float64]

    @cached_property
    def original(self) -> FloatRunner:
        """Runs the float policy."""
        return FloatRunner(self.policy)

    @cached_property
    def runners(self) -> dict[str, Int8Runner]:
        """Run the candidates, by track."""
        return {track: Int8Runner(candidate) for track, candidate in self.candidates.items()}

    @property
    def slack(self) -> float:
        """How far inside its side float has to stay, to be settled."""
        return slack_of(self.policy.action_space, float(self.span.max()))

    def deviations(self, reference: F32, values: F32) -> NDArray[np.float64]:
        """(N,) the largest difference of a component, as a share of its range."""
        difference = np.abs(values.astype(np.float64) - reference.astype(np.float64))
        return np.asarray((difference / self.span).max(axis=1))


@dataclass(frozen=True, eq=False)
class Measured:
    """What a track showed on some frames of one group.

    Attributes:
        counts: (P + 1, 8) by number of peers, `quant.evaluation.stress.results.COUNTS`.
        worst: (P + 1,) the largest deviation; 0 where there were no frames.
        found: the frames that are kept.
    """

    counts: NDArray[np.int64]
    worst: NDArray[np.float64]
    found: Found


@dataclass(frozen=True, eq=False)
class Part:
    """A chunk, measured.

    Attributes:
        group: of its frames.
        tracks: what each candidate showed.
        sampled, on_a_side, unsettled: frames looked at for whether float is settled, how many of them are on a side,
            and on how many of those it does not stay there.
    """

    group: str
    tracks: Mapping[str, Measured]
    sampled: int = 0
    on_a_side: int = 0
    unsettled: int = 0


def measure_chunk(trial: Trial, chunk: Chunk) -> Part:
    """Makes a chunk's frames and holds every candidate against float on them."""
    return measure(trial, chunk.group, trial.sampling.make(chunk))


def measure(trial: Trial, group: str, frames: Observations) -> Part:
    """Holds every candidate against float on these frames."""
    reference = trial.original.values(frames)
    original = sides_of(trial.policy.action_space, reference)
    values = {track: runner.values(frames) for track, runner in trial.runners.items()}
    apart = {track: original.apart(sides_of(trial.policy.action_space, one)) for track, one in values.items()}
    known = _Settled(trial, frames, original)
    tracks = {
        track: _measured(trial, track, _On(group, frames, reference, original, values[track]), known.of(*apart[track]))
        for track in values
    }
    return Part(group, tracks, *(known.sample() if group == SPREAD else (0, 0, 0)))


class _Settled:
    """Whether float is settled, looked at once for each frame and component that it is asked for."""

    def __init__(self, trial: Trial, frames: Observations, original: Sides) -> None:
        self._trial, self._frames, self._original = trial, frames, original
        self._known = np.zeros(original.acts.shape, np.bool_)
        self._stays = np.zeros(original.acts.shape, np.bool_)

    def look(self, asked: Bits) -> Bits:
        """(N, C) those of the asked where it stays on its side."""
        rows, component = np.nonzero(asked & ~self._known)
        acts = self._original.acts[rows, component]
        contract = self._trial.sampling.contract
        policy, slack = self._trial.policy, self._trial.slack
        self._stays[rows, component] = settled(policy, contract, self._frames[rows], component, acts, slack)
        self._known[rows, component] = True
        return np.asarray(asked & self._stays)

    def of(self, missed: Bits, false: Bits) -> dict[str, tuple[Bits, Bits]]:
        """(N,) frames with a missed and with a false action, and those of them on which float is settled."""
        asked = {MISSED: missed, FALSE: false}
        return {
            kind: (np.asarray(bits.any(axis=1)), np.asarray(self.look(bits).any(axis=1)))
            for kind, bits in asked.items()
        }

    def sample(self) -> tuple[int, int, int]:
        """Frames looked at, those on a side with any component, and those that leave it with one."""
        rows = np.linspace(0, len(self._frames) - 1, min(SAMPLE, len(self._frames))).astype(np.int64)
        asked = np.zeros_like(self._known)
        asked[rows] = (self._original.acts | self._original.rests)[rows]
        leaves = asked & ~self.look(asked)
        return len(rows), int(asked.any(axis=1).sum()), int(leaves.any(axis=1).sum())


@dataclass(frozen=True, eq=False)
class _On:
    """Frames of a group, with what float gives, on which side that is, and what a candidate gives."""

    group: str
    frames: Observations
    reference: F32
    original: Sides
    values: F32


def _measured(trial: Trial, track: str, on: _On, apart: Mapping[str, tuple[Bits, Bits]]) -> Measured:
    deviation = trial.deviations(on.reference, on.values)
    peers = on.frames.counts
    slots = trial.sampling.contract.max_peers
    (missed, missed_settled), (false, false_settled) = apart[MISSED], apart[FALSE]
    saturated = saturates(trial.candidates[track], trial.sampling, on.group, on.frames)
    counted = (
        np.ones(len(peers), np.bool_),
        missed_settled,
        false_settled,
        missed & ~missed_settled,
        false & ~false_settled,
        saturated,
        on.original.acts.any(axis=1),
        on.original.rests.any(axis=1),
    )
    counts = np.stack([np.bincount(peers[bits], minlength=slots + 1) for bits in counted], axis=1)
    worst = np.zeros(slots + 1)
    np.maximum.at(worst, peers, deviation)
    found = [_found(track, on, deviation, WORST, _worst_rows(peers, deviation))]
    for kind, (bits, stays) in apart.items():
        rows = np.flatnonzero(bits)
        found.append(_found(track, on, deviation, kind, rows, stays[rows]).highest(KEPT_MISSED))
    return Measured(counts, worst, Found.concatenate(found))


def _worst_rows(peers: NDArray[np.int64], deviation: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.lexsort((-deviation, peers))
    ranked = peers[order]
    # How far down its own number of peers each stands.
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return order[rank < KEPT_WORST]


def _found(
    track: str,
    on: _On,
    deviation: NDArray[np.float64],
    kind: str,
    rows: NDArray[np.int64],
    stays: Bits | None = None,
) -> Found:
    n = len(rows)
    return Found(
        on.frames[rows],
        np.full(n, track),
        np.full(n, kind),
        np.full(n, on.group),
        np.zeros(n, np.bool_) if stays is None else stays,
        deviation[rows],
        on.reference[rows],
        on.values[rows],
    )


def saturates(candidate: Candidate, sampling: Sampling, group: str, frames: Observations) -> Bits:
    """(N,) frames with an input whose code saturates: it is at an end, and the value beyond what the end stands for."""
    ego, peers = cut(candidate, sampling.contract)
    out = np.zeros(len(frames), np.bool_)
    if group != BEYOND and not ego.any() and not peers.any():
        return out  # what represents both bounds represents all between them
    out |= _saturates(candidate.ego_input, frames.ego).any(axis=1)
    out |= (_saturates(candidate.peer_input, frames.peers).any(axis=2) & frames.mask).any(axis=1)
    return out


def cut(candidate: Candidate, contract: Contract) -> tuple[Bits, Bits]:
    """(E,) and (F,) features of ego and peers of which the candidate does not represent the whole declared range."""
    found = []
    for affine, peers in ((candidate.ego_input, False), (candidate.peer_input, True)):
        ends = np.stack(contract.bounds(peers=peers))
        found.append(np.asarray(_saturates(affine, ends).any(axis=0)))
    return found[0], found[1]


def cut_columns(candidate: Candidate, contract: Contract) -> tuple[str, ...]:
    """Names of those features, as ``ego's speed``."""
    kinds = zip(("ego", "peers"), (False, True), cut(candidate, contract), strict=True)
    return tuple(
        whose(kind, name)
        for kind, peers, beyond in kinds
        for name, is_cut in zip(contract.names(peers=peers), beyond, strict=True)
        if is_cut
    )


def _saturates(affine: Affine, values: F32) -> Bits:
    low, high = code_limits(affine.bits)
    steps = np.rint(values * affine.gain + affine.offset)
    return np.asarray((steps < low) | (steps > high))
