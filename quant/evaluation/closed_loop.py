"""Drives every actor through the same frozen scenarios, in parallel, with the same result whatever the parallelism.

An episode depends on its scenario and on the actor alone. Work is cut into chunks of a fixed size, and every process,
this one included, computes with one BLAS thread: so the batches, and with them the last bits of a float matrix product,
are the same for one worker and for sixty-four. (They do depend on the chunk, see :data:`CHUNK`; a candidate's integers
depend on nothing.)

Actors come one after the other through the same chunk, so that a world may keep for the next what no actor changes
(:mod:`quant.worlds.convoy_course`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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

CHUNK = 1000
"""Episodes driven at once where the world runs so many: enough for NumPy, few enough for a core's cache.

A part of the verdict and no setting: some processors' BLAS gives a row of a float product other last bits in a batch of
another size, or at another place of it.
"""
BATCHES = 4
"""Batches of a task in a world that runs fewer episodes at once; its batches are the same however many these are."""

Timed = Callable[[str, str, float], None]
"""Told an actor, a slice, and the CPU seconds its episodes took, of whichever process."""


@dataclass(frozen=True)
class _Stage:
    """What every worker gets once."""

    world: World
    actors: tuple[Actor, ...]

    @cached_property
    def acts(self) -> tuple[Act, ...]:
        """Built in the process that uses them, and once."""
        return tuple(actor.build() for actor in self.actors)


class _Task(NamedTuple):
    actor: int
    scenarios: ScenarioSet


class _Part(NamedTuple):
    episodes: Episodes
    seconds: float


def drive(
    actors: Sequence[Actor],
    world: World,
    scenarios: ScenarioSet,
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
    timed: Timed = lambda actor, slice_name, seconds: None,
) -> dict[str, tuple[SliceOutcome, ...]]:
    """Every actor through every scenario.

    Args:
        actors: with different names.
        world: where the scenarios run.
        scenarios: one or more slices.
        workers: processes; None: one for each processor.
        progress: called with episodes done and in all, after every task.
        timed: called for every actor and slice at the end.

    Returns:
        For each actor its outcome on each slice, in the order of ``scenarios.slice_names``.

    Raises:
        InputError: what :func:`quant.worlds.rollout.rollout` raises, or a reward that is not finite.
    """
    chunks = _chunks(world, scenarios)
    tasks = [_Task(actor, chunk) for chunk in chunks for actor in range(len(actors))]
    total, finished = sum(len(task.scenarios) for task in tasks), 0

    def done(task: int) -> None:
        nonlocal finished
        finished += len(tasks[task].scenarios)
        progress(finished, total)

    results = map_tasks(_drive_chunk, _Stage(world, tuple(actors)), tasks, workers=workers, done=done)
    parts: dict[tuple[int, str], list[_Part]] = defaultdict(list)
    for task, part in zip(tasks, results, strict=True):
        parts[task.actor, task.scenarios.slice_names[0]].append(part)
    outcomes: dict[str, list[SliceOutcome]] = {actor.name: [] for actor in actors}
    for index, actor in enumerate(actors):
        for name in scenarios.slice_names:
            outcomes[actor.name].append(_outcome(name, [part.episodes for part in parts[index, name]]))
            timed(actor.name, name, sum(part.seconds for part in parts[index, name]))
    return {name: tuple(slices) for name, slices in outcomes.items()}


def _chunks(world: World, scenarios: ScenarioSet) -> list[ScenarioSet]:
    """Each of one slice, and the same whatever the number of workers."""
    size = CHUNK if world.batch >= CHUNK else BATCHES * world.batch
    slices = [scenarios.of_slice(name) for name in scenarios.slice_names]
    return [part[start : start + size] for part in slices for start in range(0, len(part), size)]


def _drive_chunk(stage: _Stage, task: _Task) -> _Part:
    start = time.process_time()
    episodes = rollout(stage.world, task.scenarios, stage.acts[task.actor])
    return _Part(episodes, time.process_time() - start)


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
