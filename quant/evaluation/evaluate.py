"""The float policy and every candidate, evaluated on the same frames and the same scenarios."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from quant.errors import InputError, StaleError
from quant.evaluation import open_loop
from quant.evaluation.actors import Actor, gate_actors, gate_values
from quant.evaluation.closed_loop import drive
from quant.evaluation.evaluation import ARITHMETIC, FLOAT, FLOAT_ARITHMETIC, ClosedLoop, Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Paired
from quant.files import Progress, no_progress
from quant.observation.observations import F32, Observations
from quant.policy.policy import Policy
from quant.runners.runner import FloatRunner, Int8Runner
from quant.tracks.candidate import Candidate
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World

Timed = Callable[[str, float], None]
"""Told a stage of an evaluation and the CPU seconds it took, of whichever processes."""


def evaluate(
    policy: Policy,
    candidates: Mapping[str, Candidate],
    held_out: Observations,
    *,
    policy_sha256: str,
    dataset_sha256: str,
    origins: NDArray[Any] | None = None,
    tolerance: float = open_loop.ACTION_TOLERANCE,
    world: World | None = None,
    scenarios: ScenarioSet | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
    timed: Timed = lambda stage, seconds: None,
) -> dict[str, Evaluation]:
    """Evaluates open loop on held-out frames and, where there is a world, closed loop on frozen scenarios.

    Args:
        policy: the float policy.
        candidates: by track.
        held_out: frames no track has seen.
        policy_sha256, dataset_sha256: of the policy, and of the dataset the held-out frames are from.
        origins: (N,) where each held-out frame comes from, as ``recorded``, ``rollout`` or ``augmented``.
        tolerance: of the agreement of continuous actions, as a share of the range.
        world, scenarios: both or neither.
        workers: processes of the closed loop; None: one for each processor.
        progress: called with episodes done and in all.
        timed: called for each actor on each slice, the statistics of driving, and the comparison on held-out frames.

    Returns:
        ``float`` first, then the candidates in their order.

    Raises:
        InputError: only one of world and scenarios, a policy that does not fit the world, a candidate under another
            name than its track's, or no held-out frames.
        StaleError: a candidate was made from another policy or dataset.
    """
    if (world is None) != (scenarios is None):
        raise InputError("a world without scenarios, or the reverse", where="evaluate", expected="both or neither")
    for name, candidate in candidates.items():
        _check_candidate(name, candidate, policy_sha256, dataset_sha256)
    driven: dict[str, ClosedLoop] = {}
    if world is not None and scenarios is not None:
        world.check_fits(policy)
        outcomes = drive(
            _actors(policy, candidates),
            world,
            scenarios,
            workers=workers,
            progress=progress,
            timed=lambda actor, name, seconds: timed(f"{actor} on {name}", seconds),
        )
        with _timing("statistics", timed):
            driven = _closed_loops(outcomes, candidates)
    hashes = {
        "policy": policy_sha256,
        "dataset": dataset_sha256,
        "scenarios": None if scenarios is None else scenarios.digest,
    }
    specification = None if scenarios is None else _world_json(scenarios)
    # One BLAS thread, as where actors drive: sums of floats then have one order.
    with _timing("held-out frames", timed), threadpool_limits(1):
        gate, close, exact = _open_loop(policy, candidates, held_out, origins, tolerance)
    evaluations = {
        FLOAT: Evaluation(FLOAT, FLOAT_ARITHMETIC, hashes, specification, driven.get(FLOAT), None, gate, exact=exact)
    }
    for name, candidate in candidates.items():
        own = hashes | candidate.identity
        evaluations[name] = Evaluation(
            name, ARITHMETIC[candidate.bits], own, specification, driven.get(name), close[name]
        )
    return evaluations


def _open_loop(
    policy: Policy,
    candidates: Mapping[str, Candidate],
    held_out: Observations,
    origins: NDArray[Any] | None,
    tolerance: float,
) -> tuple[dict[str, open_loop.Closeness], dict[str, open_loop.OpenLoop], dict[str, int]]:
    """How close to the float policy the gate's actors are on all frames, and the candidates on each kind.

    And, by kind, on how many frames no candidate has any error.
    """
    reference = FloatRunner(policy).values(held_out)

    def closeness_of(values: F32) -> open_loop.OpenLoop:
        return open_loop.compare(
            policy.action_space,
            reference,
            values,
            held_out.counts,
            max_peers=policy.max_peers,
            origins=origins,
            tolerance=tolerance,
        )

    gate = {name: closeness_of(values).overall for name, values in gate_values(policy, held_out).items()}
    values = {name: Int8Runner(one).values(held_out) for name, one in candidates.items()}
    kinds = np.full(len(held_out), open_loop.RECORDED) if origins is None else origins
    return gate, {name: closeness_of(own) for name, own in values.items()}, _exact(policy, reference, values, kinds)


def _exact(policy: Policy, reference: F32, values: Mapping[str, F32], origins: NDArray[Any]) -> dict[str, int]:
    clip = policy.action_space.clip
    same = np.ones(len(reference), np.bool_)
    for own in values.values():
        same &= (clip(own) == clip(reference)).all(axis=1)
    return {str(name): int(same[origins == name].sum()) for name in np.unique(origins)}


@contextmanager
def _timing(stage: str, timed: Timed) -> Iterator[None]:
    start = time.process_time()
    yield
    timed(stage, time.process_time() - start)


def _check_candidate(name: str, candidate: Candidate, policy_sha256: str, dataset_sha256: str) -> None:
    if name == FLOAT or name != candidate.track:
        raise InputError(
            f"a candidate is called {name!r}", where="evaluate", expected=f"its track, {candidate.track!r}"
        )
    for what, made_with, wanted in (
        ("policy", candidate.policy_sha256, policy_sha256),
        ("dataset", candidate.dataset_sha256, dataset_sha256),
    ):
        if made_with != wanted:
            raise StaleError(
                f"the candidate was made with another {what}",
                where=name,
                expected=f"sha256 {wanted}, got {made_with}",
                hint=f"run quant {name} again",
            )


def _actors(policy: Policy, candidates: Mapping[str, Candidate]) -> list[Actor]:
    tracks = [Actor(name, candidate) for name, candidate in candidates.items()]
    return [Actor(FLOAT, policy), *tracks, *gate_actors(policy)]


def _closed_loops(
    outcomes: Mapping[str, tuple[SliceOutcome, ...]], candidates: Mapping[str, Candidate]
) -> dict[str, ClosedLoop]:
    original = outcomes[FLOAT]
    gate = {name: slices for name, slices in outcomes.items() if name != FLOAT and name not in candidates}
    loops = {FLOAT: ClosedLoop(original, (), gate)}
    for name in candidates:
        tables = tuple(Paired.of(f.success, c.success) for f, c in zip(original, outcomes[name], strict=True))
        loops[name] = ClosedLoop(outcomes[name], tables)
    return loops


def _world_json(scenarios: ScenarioSet) -> dict[str, Any]:
    return {
        "specification": scenarios.world,
        "kwargs": json.loads(scenarios.world_kwargs),
        "purpose": scenarios.purpose,
        "seed": scenarios.seed,
        "episodes": len(scenarios),
    }
