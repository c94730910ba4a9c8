"""Drives every actor through the same frozen scenarios, in parallel, with the same result whatever the parallelism.

An episode depends on its scenario and on the actor alone. Work is cut into chunks of a fixed size, and every process,
this one included, computes with one BLAS thread: so the batches, and with them the last bits of a float matrix product,
are the same for one worker and for sixty-four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quant.errors import InputError
from quant.evaluation.actors import Act, Actor
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.parallel import map_tasks
from quant.evaluation.statistics import mean
from quant.files import Progress, no_progress
from quant.worlds.rollout import Episodes, rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World

CHUNK = 500
"""Episodes of one task: large enough to keep NumPy busy, small enough for an even finish and a moving progress bar."""


@dataclass(frozen=True)
class _Stage:
    """What every worker gets once."""

    world: World
    actors: tuple[Actor, ...]

    @cached_property
    def acts(self) -> tuple[Act, ...]:
        """Built in the process that uses them, and once."""
        return tuple(actor.build() for actor in self.actors)


def drive(
    actors: Sequence[Actor],
    world: World,
    scenarios: ScenarioSet,
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, tuple[SliceOutcome, ...]]:
    """Every actor through every scenario.

    Args:
        actors: with different names.
        world: where the scenarios run.
        scenarios: one or more slices.
        workers: processes; None: one for each processor.
        progress: called with episodes done and in all, after every chunk.

    Returns:
        For each actor its outcome on each slice, in the order of ``scenarios.slice_names``.

    Raises:
        InputError: what :func:`quant.worlds.rollout.rollout` raises, or a reward that is not finite.
    """
    chunks = [part for name in scenarios.slice_names for part in _chunks(scenarios.of_slice(name))]
    tasks = [(index, chunk) for index in range(len(actors)) for chunk in chunks]
    total, finished = sum(len(chunk) for _, chunk in tasks), 0

    def done(task: int) -> None:
        nonlocal finished
        finished += len(tasks[task][1])
        progress(finished, total)

    results = map_tasks(_drive_chunk, _Stage(world, tuple(actors)), tasks, workers=workers, done=done)
    return {
        actor.name: tuple(
            _outcome(
                name, [r for (i, c), r in zip(tasks, results, strict=True) if i == index and c.slice_names == (name,)]
            )
            for name in scenarios.slice_names
        )
        for index, actor in enumerate(actors)
    }


def _chunks(scenarios: ScenarioSet) -> list[ScenarioSet]:
    return [scenarios[start : start + CHUNK] for start in range(0, len(scenarios), CHUNK)]


def _drive_chunk(stage: _Stage, task: tuple[int, ScenarioSet]) -> Episodes:
    actor, scenarios = task
    return rollout(stage.world, scenarios, stage.acts[actor])


def _outcome(name: str, parts: Sequence[Episodes]) -> SliceOutcome:
    episodes = Episodes.concatenate(parts)
    if not np.isfinite(episodes.reward).all():
        raise InputError(f"a reward on slice {name} is not a finite number", where="world", expected="finite rewards")
    return SliceOutcome(
        name,
        episodes.success,
        episodes.collision if episodes.collision_known.all() else None,
        None if np.isnan(episodes.needless).any() else mean(episodes.needless),
        mean(episodes.reward),
    )
