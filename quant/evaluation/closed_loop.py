"""Drives every actor through the same frozen scenarios, in parallel, with the same result whatever the parallelism.

An episode depends on its scenario and on the actor alone. Work is cut into chunks of a fixed size, and every process,
this one included, computes with one BLAS thread: so the batches, and with them the last bits of a float matrix product,
are the same for one worker and for sixty-four. (They do depend on the chunk, see :data:`CHUNK`; a candidate's integers
depend on nothing.)

How the chunks are dealt out is free, and goes by speed: a world may compute what no actor can change once for a chunk
(:mod:`quant.worlds.convoy_course`), so a worker drives all actors through it, but for the last chunks, which are shared
out actor by actor, so that nobody waits long for the last worker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quant.errors import InputError
from quant.evaluation.actors import Act, Actor
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.parallel import available_cpus, map_tasks
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
Part = tuple[Episodes, float]
"""Episodes, and the CPU seconds they took."""


@dataclass(frozen=True)
class _Stage:
    """What every worker gets once."""

    world: World
    actors: tuple[Actor, ...]

    @cached_property
    def acts(self) -> tuple[Act, ...]:
        """Built in the process that uses them, and once."""
        return tuple(actor.build() for actor in self.actors)


@dataclass(frozen=True)
class _Task:
    """Some actors, by number, through one chunk of scenarios."""

    actors: tuple[int, ...]
    scenarios: ScenarioSet

    @property
    def episodes(self) -> int:
        return len(self.actors) * len(self.scenarios)


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
    workers = available_cpus() if workers is None else workers
    tasks = _tasks(len(actors), world, scenarios, workers)
    total, finished = sum(task.episodes for task in tasks), 0

    def done(task: int) -> None:
        nonlocal finished
        finished += tasks[task].episodes
        progress(finished, total)

    results = map_tasks(_drive_chunk, _Stage(world, tuple(actors)), tasks, workers=workers, done=done)
    parts: dict[tuple[int, str], list[Part]] = defaultdict(list)
    for task, driven in zip(tasks, results, strict=True):
        for index, part in zip(task.actors, driven, strict=True):
            parts[index, task.scenarios.slice_names[0]].append(part)
    outcomes: dict[str, list[SliceOutcome]] = {actor.name: [] for actor in actors}
    for index, actor in enumerate(actors):
        for name in scenarios.slice_names:
            episodes, seconds = zip(*parts[index, name], strict=True)
            outcomes[actor.name].append(_outcome(name, episodes))
            timed(actor.name, name, sum(seconds))
    return {name: tuple(slices) for name, slices in outcomes.items()}


def _tasks(actors: int, world: World, scenarios: ScenarioSet, workers: int) -> list[_Task]:
    """All of them, the longest first; the chunks of a slice in their order, whatever the number of workers."""
    size = CHUNK if world.batch >= CHUNK else BATCHES * world.batch
    slices = [scenarios.of_slice(name) for name in scenarios.slice_names]
    chunks = [part[start : start + size] for part in slices for start in range(0, len(part), size)]
    together = max(len(chunks) - workers, 0) if world.shares else 0
    whole = [_Task(tuple(range(actors)), chunk) for chunk in chunks[:together]]
    return whole + [_Task((actor,), chunk) for chunk in chunks[together:] for actor in range(actors)]


def _drive_chunk(stage: _Stage, task: _Task) -> list[Part]:
    return [_timed_rollout(stage.world, task.scenarios, stage.acts[actor]) for actor in task.actors]


def _timed_rollout(world: World, scenarios: ScenarioSet, act: Act) -> Part:
    start = time.process_time()
    episodes = rollout(world, scenarios, act)
    return episodes, time.process_time() - start


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
