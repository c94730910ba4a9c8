"""Episodes of the convoy world in which the float policy and a candidate part, driven once more and watched.

The float policy drives an episode among the same others as when it was evaluated
(:data:`quant.evaluation.closed_loop.CHUNK`), so that its matrix products, and with them every decision, are the same to
the last bit. A candidate computes with integers, for which the company does not matter: it drives alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.actors import Actor
from quant.evaluation.closed_loop import CHUNK
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.tracks.candidate import Candidate
from quant.worlds.convoy import ConvoyVectorEnv
from quant.worlds.convoy_scenarios import AHEAD_SLOTS, STEP_S
from quant.worlds.kinematics import LENGTH
from quant.worlds.rollout import rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import CONVOY, ConvoyWorld, World

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Parting:
    """An episode that not all of float and the candidates end alike.

    Attributes:
        slice: of the scenarios.
        index: of the episode within its slice.
        success: by track.
        collision: by track; None where the world does not say.
    """

    slice: str
    index: int
    success: Mapping[str, bool]
    collision: Mapping[str, bool | None]

    @property
    def collides(self) -> bool:
        """Whether some track collides."""
        return any(self.collision.values())


@dataclass(frozen=True, eq=False)
class Drive:
    """One actor's way through one convoy episode, T moments 0.1 s apart, the start first; cut at a collision.

    Attributes:
        time: (T,) s.
        ego: (T,) m, place of the ego's front, from where it started.
        gap: (T,) m, to the rear of the vehicle ahead.
        speed: (T,) m/s of the ego.
        leader: (T,) m/s of the vehicle ahead.
        action: (T,) int64, decided at that moment; -1 at the last one.
        acceleration: (T,) m/s^2 of the ego.
        others: (T, V) m, places of the vehicles present.
        success, collision: how it ended.
    """

    time: F64
    ego: F64
    gap: F64
    speed: F64
    leader: F64
    action: NDArray[np.int64]
    acceleration: F64
    others: F64
    success: bool
    collision: bool


@dataclass(frozen=True, eq=False)
class Replay:
    """A parting episode with the drive of every track."""

    parting: Parting
    drives: Mapping[str, Drive]

    @property
    def first_other(self) -> dict[str, int]:
        """The moment at which each track first decides otherwise than float, which until then saw the same.

        Tracks that never do while both still drive are not among them.
        """
        reference = self.drives[FLOAT].action[:-1]
        found = {}
        for track, drive in self.drives.items():
            steps = min(len(reference), len(drive.action) - 1)
            other = np.flatnonzero(drive.action[:steps] != reference[:steps])
            if len(other):
                found[track] = int(other[0])
        return found


def partings(evaluations: Mapping[str, Evaluation]) -> tuple[Parting, ...]:
    """All episodes that float and the candidates do not all end alike, in the order of the scenarios."""
    loops = {track: one.closed_loop for track, one in evaluations.items()}
    reference = loops[FLOAT]
    if reference is None:
        return ()
    found = []
    for place, outcome in enumerate(reference.slices):
        slices = {track: loop.slices[place] for track, loop in loops.items() if loop is not None}
        ended = np.stack([one.success for one in slices.values()])
        for row in np.flatnonzero(ended.any(axis=0) & ~ended.all(axis=0)).tolist():
            success = {track: bool(one.success[row]) for track, one in slices.items()}
            collision = {t: None if s.collision is None else bool(s.collision[row]) for t, s in slices.items()}
            found.append(Parting(outcome.name, row, success, collision))
    return tuple(found)


def telling(found: Sequence[Parting], track: str) -> tuple[Parting, ...]:
    """One or two episodes worth drawing: the first that ``track`` loses against float and the first it wins.

    Of the lost, and of the won, ones with a collision come first: they are what a reader has to see.
    """
    chosen = []
    for float_succeeds in (True, False):
        own = [one for one in found if one.success[FLOAT] == float_succeeds and one.success[track] != float_succeeds]
        chosen += sorted(own, key=lambda one: not one.collides)[:1]
    return tuple(chosen)


def replay(parting: Parting, actors: Sequence[Actor], world: World, scenarios: ScenarioSet) -> Replay | None:
    """Drives an episode again with every actor.

    Returns:
        None where the world is not the convoy, or where an actor does not end the episode as it did when it was
        evaluated: then a drawing would not show what the figures are of.
    """
    if world.spec != CONVOY or not isinstance(world, ConvoyWorld):
        return None
    own = scenarios.of_slice(parting.slice)
    drives = {}
    for actor in actors:
        size = 1 if isinstance(actor.brain, Candidate) else CHUNK
        start = parting.index - parting.index % size
        drive = _drive(actor, world, own[start : start + size], parting.index - start)
        if drive.success != parting.success[actor.name] or drive.collision != parting.collision[actor.name]:
            return None
        drives[actor.name] = drive
    return Replay(parting, drives)


@dataclass
class _Moments:
    """What is noted of one convoy at every step, by column."""

    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **values: Any) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


class _Watched(ConvoyVectorEnv):
    """Convoys of which one is noted at every step."""

    def __init__(self, scenarios: ScenarioSet, row: int, moments: _Moments) -> None:
        super().__init__(scenarios)
        self._row, self._moments = row, moments

    def reset(self, **arguments: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        started = super().reset(**arguments)
        self._note()
        return started

    def step(self, actions: NDArray[Any]) -> Any:
        over = bool(self.collision[self._row])
        stepped = super().step(actions)
        if not over:
            self._moments.add(action=int(actions[self._row]))
            self._note()
        return stepped

    def _note(self) -> None:
        row = self._row
        places = self._x[row].astype(np.float64)
        self._moments.add(
            ego=float(self._ego_x[row]),
            speed=float(self._ego_v[row]),
            acceleration=float(self._ego_a[row]),
            gap=float(places[0] - self._ego_x[row]) - LENGTH,
            leader=float(self._v[row, 0]),
            others=np.where(self._present[row], places, np.nan)[: AHEAD_SLOTS + 1],
        )


@dataclass(frozen=True)
class _WatchedWorld(ConvoyWorld):
    row: int = 0
    moments: _Moments = field(default_factory=_Moments)

    def make(self, scenarios: ScenarioSet) -> _Watched:
        return _Watched(scenarios, self.row, self.moments)


def _drive(actor: Actor, world: ConvoyWorld, scenarios: ScenarioSet, row: int) -> Drive:
    given = {item.name: getattr(world, item.name) for item in fields(ConvoyWorld)}
    watched = _WatchedWorld(**given, row=row)
    ended = rollout(watched, scenarios, actor.build())
    columns = watched.moments.columns
    figures = {
        name: np.array(columns[name], np.float64)
        for name in ("ego", "gap", "speed", "leader", "acceleration", "others")
    }
    return Drive(
        time=np.arange(len(columns["ego"]), dtype=np.float64) * STEP_S,
        action=np.array([*columns["action"], -1], np.int64),
        success=bool(ended.success[row]),
        collision=bool(ended.collision[row]),
        **figures,
    )
