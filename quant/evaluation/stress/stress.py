"""A stress test of a policy and its candidates over the declared range of the inputs: the pass, then the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from quant.errors import InputError
from quant.evaluation.parallel import map_tasks
from quant.evaluation.stress.found import BEYOND, FALSE, MISSED, SPREAD, WORST, Found
from quant.evaluation.stress.frames import Chunk, Sampling, recorded_of
from quant.evaluation.stress.measure import KEPT_MISSED, KEPT_WORST, Measured, Part, Trial, cut_columns, measure_chunk
from quant.evaluation.stress.results import (
    Stress,
    TrackStress,
    Unsettled,
    tallies,
    total,
)
from quant.evaluation.stress.search import Start, search
from quant.files import Progress, no_progress
from quant.observation.contract import Contract
from quant.observation.observations import Observations
from quant.policy.policy import Box, Policy
from quant.runners import FloatRunner
from quant.tracks.candidate import Candidate

FRAMES = 1_000_000
"""Frames within the bounds, unless another number is asked for."""
WORTH_A_POOL = 300_000
"""Frames times candidates below which other processes take longer to begin than to work."""
SEARCHES = 9
"""Numbers of peers that are searched for each track, the worst first."""
KEPT = {WORST: 72, MISSED: KEPT_MISSED, FALSE: KEPT_MISSED}
"""Frames kept of each track, at the most."""


def stress(
    policy: Policy,
    candidates: Mapping[str, Candidate],
    contract: Contract,
    seen: Observations,
    *,
    policy_sha256: str,
    dataset_sha256: str,
    frames: int = FRAMES,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Stress:
    """Looks for the worst between float and each candidate within the declared range.

    The result does not depend on the number of workers. Memory is bounded: frames are made and measured by the chunk.

    Args:
        policy: in float.
        candidates: by track.
        contract: of the observation, with a bound everywhere.
        seen: frames that were recorded or driven; may be none.
        policy_sha256, dataset_sha256: of the policy, and of the dataset the contract is from.
        frames: within the bounds; those beyond come on top.
        seed: of all that is drawn.
        workers: processes; None: one for each processor.
        progress: called with frames done and in all; the search counts as an eighth of them.

    Raises:
        InputError: a bound is missing, the action space has no range, or there is nothing to do.
    """
    _check(contract, candidates, frames)
    sampling = Sampling(contract, recorded_of(seen), frames, seed)
    with threadpool_limits(1):  # as where chunks are measured: sums of floats then have one order
        trial = Trial(policy, dict(candidates), sampling, _span(policy, sampling))
    chunks = sampling.chunks()
    watch = _Watch(chunks, progress)
    few = frames * len(candidates) < WORTH_A_POOL
    parts = map_tasks(measure_chunk, trial, chunks, workers=1 if few else workers, done=watch.measured)
    starts = _starts(parts)
    searched = map_tasks(
        search, trial, starts, workers=1 if few else workers, done=lambda _: watch.searched(len(starts))
    )
    return _result(trial, [*parts, *searched], policy_sha256, dataset_sha256)


def _check(contract: Contract, candidates: Mapping[str, Candidate], frames: int) -> None:
    if frames < 1 or not candidates:
        raise InputError("nothing to stress", where="stress", expected="at least a frame and a candidate")
    unbounded = [one.name for one in (*contract.ego, *contract.peers) if one.low is None or one.high is None]
    if unbounded:
        raise InputError(
            f"no bound is known of {', '.join(unbounded)}",
            where="stress",
            expected="a bound everywhere, declared or as far as was recorded and a margin",
            hint="declare it in observation.toml",
        )


def _span(policy: Policy, sampling: Sampling) -> NDArray[np.float64]:
    """What a difference is a share of: a Box's range; of logits, how far float's go on low-discrepancy frames."""
    space = policy.action_space
    if not isinstance(space, Box):
        first = Chunk(SPREAD, 0, min(sampling.chunk_frames, max(sampling.counts[SPREAD], 1)))
        logits = FloatRunner(policy).values(sampling.make(first))
        return np.full(space.width, max(float(np.ptp(logits)), np.finfo(np.float32).tiny))
    span = np.array(space.high, np.float64) - np.array(space.low, np.float64)
    if not (np.isfinite(span).all() and (span > 0).all()):
        raise InputError(
            f"the action space has no finite range: {space.low}..{space.high}",
            where="stress",
            expected="finite bounds, so that a difference can be a share of the range",
        )
    return span


class _Watch:
    """Tells a progress callback of frames as chunks come in, in whatever order."""

    def __init__(self, chunks: Sequence[Chunk], progress: Progress) -> None:
        self._chunks, self._progress = chunks, progress
        self._frames = sum(chunk.frames for chunk in chunks)
        self._all = self._frames + self._frames // 8
        self._done = self._searches = 0

    def measured(self, index: int) -> None:
        self._done += self._chunks[index].frames
        self._progress(self._done, self._all)

    def searched(self, starts: int) -> None:
        self._searches += 1
        self._progress(self._frames + (self._all - self._frames) * self._searches // starts, self._all)


def _starts(parts: Sequence[Part]) -> list[Start]:
    """For each track its worst frames within the bounds, for the numbers of peers on which they are worst."""
    starts: list[Start] = []
    for track in parts[0].tracks:
        kept = [part.tracks[track].found for part in parts if part.group != BEYOND]
        worst = Found.concatenate([found.of(track, WORST) for found in kept]).highest_by_peers(KEPT_WORST)
        counts = worst.observations.counts
        each = [worst[counts == count] for count in np.unique(counts)]
        each.sort(key=lambda one: -float(one.deviation[0]))
        starts += [Start(track, one, len(starts) + number) for number, one in enumerate(each[:SEARCHES])]
    return starts


def _result(trial: Trial, parts: Sequence[Part], policy_sha256: str, dataset_sha256: str) -> Stress:
    contract = trial.sampling.contract
    tracks, found = {}, []
    for track, candidate in trial.candidates.items():
        own = [(part.group, part.tracks[track]) for part in parts if track in part.tracks]
        tracks[track] = _track(trial, candidate, own)
        found += [_kept([one.found for group, one in own if group != BEYOND], kind) for kind in KEPT]
    hashes = {"policy": policy_sha256, "dataset": dataset_sha256, "contract": contract.digest}
    return Stress(
        trial.sampling.frames,
        trial.sampling.seed,
        tuple(float(value) for value in trial.span),
        hashes,
        contract.undeclared,
        Unsettled(sum(p.sampled for p in parts), sum(p.on_a_side for p in parts), sum(p.unsettled for p in parts)),
        tracks,
        Found.concatenate(found),
        contract,
    )


def _track(trial: Trial, candidate: Candidate, own: Sequence[tuple[str, Measured]]) -> TrackStress:
    groups = {}
    for name in dict.fromkeys(group for group, _ in own):
        groups[name] = _summed([one for group, one in own if group == name])
    within = _summed([one for group, one in own if group != BEYOND])
    return TrackStress(
        candidate.track,
        candidate.identity,
        cut_columns(candidate, trial.sampling.contract),
        {name: total(tallies(*sums)) for name, sums in groups.items()},
        tallies(*within),
    )


def _summed(parts: Sequence[Measured]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """By number of peers: the counts of all parts, and their worst."""
    counts = np.sum([one.counts for one in parts], axis=0)
    return counts, np.asarray(np.max([one.worst for one in parts], axis=0), np.float64)


def _kept(found: Sequence[Found], kind: str) -> Found:
    """Of one kind: what counts and deviates most; of the worst, some of each number of peers."""
    chosen = Found.concatenate([one[one.kind == kind] for one in found])
    return (chosen.highest_by_peers(KEPT_WORST) if kind == WORST else chosen).highest(KEPT[kind])
