"""Runs a policy through frozen scenarios, many at a time, and says how each episode ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import EGO, PEER_MASK, PEERS, Observations
from quant.policy.policy import Discrete
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World

Act = Callable[[Observations], NDArray[Any]]
"""(N) observations -> (N,) int64 actions, or (N, A) float32 for a Box."""


@dataclass(frozen=True, eq=False)
class Episodes:
    """How N episodes ended, in the order of their scenarios.

    Attributes:
        success: (N,) bool, what the world calls success.
        collision: (N,) bool; False where the world does not say.
        collision_known: (N,) bool, whether it does.
        needless: (N,) float64, m/s of needless braking; NaN where the world does not say.
        reward: (N,) float64, summed up to the end.
        steps: (N,) int64, decisions up to the end.
    """

    success: NDArray[np.bool_]
    collision: NDArray[np.bool_]
    collision_known: NDArray[np.bool_]
    needless: NDArray[np.float64]
    reward: NDArray[np.float64]
    steps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.success)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Episodes:
        return Episodes(*(getattr(self, item.name)[rows] for item in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """All episodes of ``parts`` in order."""
        return Episodes(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Episodes)))


@dataclass
class Recorder:
    """Keeps what a policy saw on its way, every ``every`` steps of each episode that still runs.

    Which of the ``every`` steps it starts with differs from episode to episode (its row modulo ``every``), so that no
    moment of the episodes is left out.

    Args:
        every: 1 keeps everything.
    """

    every: int = 1
    _parts: list[tuple[Observations, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"record every {self.every} steps", expected="1 or more")

    def see(self, observations: Observations, episodes: NDArray[np.int64], step: int) -> None:
        """Takes the observations (rows of ``episodes``) of one step."""
        due = (step + episodes) % self.every == 0
        kept = episodes[due]
        self._parts.append((observations[due], kept, np.full(len(kept), step, np.int64)))

    @property
    def observations(self) -> Observations:
        """All that was kept, episode after episode, in the order of time."""
        return Observations.concatenate([part[0] for part in self._parts])[self._order()]

    @property
    def episodes(self) -> NDArray[np.int64]:
        """(M,) the row of the scenario each observation belongs to."""
        return np.concatenate([part[1] for part in self._parts])[self._order()]

    @property
    def steps(self) -> NDArray[np.int64]:
        """(M,) the step in its episode at which each was seen."""
        return np.concatenate([part[2] for part in self._parts])[self._order()]

    def _order(self) -> NDArray[np.int64]:
        return np.argsort(np.concatenate([part[1] for part in self._parts]), kind="stable")


def rollout(
    world: World,
    scenarios: ScenarioSet,
    act: Act,
    record: Recorder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Episodes:
    """Drives every scenario to its end.

    The episodes run in batches of ``world.batch``. An episode's outcome does not depend on its batch: worlds compute
    each on its own, and rewards are summed one by one. (A *policy* may: a float matrix product can differ in the last
    bit with the number of rows. Who needs equal bits cuts the set the same way each time.)

    Args:
        world: where.
        scenarios: drawn by the same world.
        act: decides for those still running.
        record: keeps the observations.
        progress: called with episodes done and in all after every batch.

    Raises:
        InputError: scenarios of another world, actions that do not fit, an episode that does not end within
            ``world.max_steps``, or an environment that breaks its contract.
    """
    parts = []
    for start in range(0, len(scenarios), world.batch):
        parts.append(_run(world, scenarios[start : start + world.batch], act, record, start))
        if progress is not None:
            progress(min(start + world.batch, len(scenarios)), len(scenarios))
    return Episodes.concatenate(parts)


def _run(world: World, scenarios: ScenarioSet, act: Act, record: Recorder | None, start: int) -> Episodes:
    env = world.make(scenarios)
    try:
        seen, _ = env.reset(seed=scenarios.episode_seeds.tolist())
        result = _Result(len(scenarios))
        rows = np.arange(len(scenarios))
        for step in range(world.max_steps):
            observations = _observations(seen, rows)
            if record is not None:
                record.see(observations, rows + start, step)
            actions = _spread(world, act(observations), rows, len(scenarios))
            seen, rewards, terminations, truncations, infos = env.step(actions)
            result.reward[rows] += np.asarray(rewards, np.float64)[rows]
            result.steps[rows] += 1
            ended = rows[(terminations | truncations)[rows]]
            if len(ended):
                result.end(ended, infos, world.spec)
                # What comes after the first end, frozen or reset, is nobody's episode.
                rows = rows[~(terminations | truncations)[rows]]
            if not len(rows):
                return result.episodes()
    finally:
        env.close()
    raise InputError(
        f"{len(rows)} of {len(scenarios)} episodes did not end",
        where=world.spec,
        expected=f"termination or truncation within {world.max_steps} steps",
        hint="give the environment a time limit, or raise max_steps (--world-kwargs '{\"max_steps\": ...}')",
    )


class _Result:
    def __init__(self, n: int) -> None:
        self.success = np.zeros(n, np.bool_)
        self.collision = np.zeros(n, np.bool_)
        self.known = np.zeros(n, np.bool_)
        self.needless = np.full(n, np.nan)
        self.reward = np.zeros(n)
        self.steps = np.zeros(n, np.int64)

    def end(self, ended: NDArray[np.int64], infos: dict[str, Any], where: str) -> None:
        told = _told(infos, "is_success", ended)
        if not told.all():
            raise InputError(
                "an episode ended and the environment did not say whether it succeeded",
                where=where,
                expected="info['is_success'] in the step that terminates or truncates",
                hint="put it there, as Stable-Baselines3's evaluation expects too",
            )
        self.success[ended] = np.asarray(infos["is_success"])[ended].astype(np.bool_)
        self._take(self.needless, "needless_braking", ended, infos)
        collided = self._take(self.collision, "collision", ended, infos)
        self.known[collided] = True

    @staticmethod
    def _take(into: NDArray[Any], name: str, ended: NDArray[np.int64], infos: dict[str, Any]) -> NDArray[np.int64]:
        rows = ended[_told(infos, name, ended)]
        if len(rows):
            into[rows] = np.asarray(infos[name])[rows].astype(into.dtype)
        return rows

    def episodes(self) -> Episodes:
        return Episodes(self.success, self.collision, self.known, self.needless, self.reward, self.steps)


def _told(infos: dict[str, Any], name: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows the environment gave ``name`` for: Gymnasium puts a mask beside each array."""
    if name not in infos:
        return np.zeros(len(rows), np.bool_)
    told: NDArray[np.bool_] = np.asarray(infos.get(f"_{name}", np.ones(len(infos[name]), np.bool_)))[rows]
    return told


def _observations(seen: dict[str, NDArray[Any]], rows: NDArray[np.int64]) -> Observations:
    ego, peers, mask = (np.asarray(seen[key]) for key in (EGO, PEERS, PEER_MASK))
    if len(rows) < len(ego):
        ego, peers, mask = (_taken(array, rows) for array in (ego, peers, mask))
    return Observations(
        ego.astype(np.float32, copy=False), peers.astype(np.float32, copy=False), mask.astype(np.bool_, copy=False)
    )


def _taken(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """``array[rows]`` with its axes in the order of memory it had: what is computed with it stays as fast."""
    if array.T.flags.c_contiguous:
        return array.T.take(rows, axis=-1).T
    return array.take(rows, axis=0)


def _spread(world: World, actions: NDArray[Any], rows: NDArray[np.int64], n: int) -> NDArray[Any]:
    """Actions for all, the neutral one for those that ended."""
    actions, space = np.asarray(actions), world.action_space
    shape = (len(rows),) if isinstance(space, Discrete) else (len(rows), space.width)
    if actions.shape != shape:
        raise InputError(f"actions of shape {actions.shape}", where=world.spec, expected=f"shape {shape}")
    kind = np.int64 if isinstance(space, Discrete) else np.float32
    everyone = np.tile(np.array(space.neutral, kind), (n, *[1] * (len(shape) - 1)))
    everyone[rows] = actions
    return everyone
