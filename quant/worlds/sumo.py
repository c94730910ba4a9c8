"""The convoy world's scenarios driven by Eclipse SUMO: a second opinion on what depends on our own vehicles.

What is frozen or is the ego's own stays ours (:mod:`quant.worlds.convoy`): the scenario, what each peer is scripted to
do, the radio channel and its luck, observations, the base driver, the ego's actuator, needless braking and reward. What
moves is SUMO's: how every vehicle gets from one state to the next, how peers follow the vehicle ahead, and what a
collision is.

- The **ego** is told a speed each step, the present one plus 0.1 s of the acceleration that its actuator gives.
  ``speedMode`` 0 switches off everything by which SUMO would brake for it, ``laneChangeMode`` 0 its lane changes.
- A **leader** (the front peer, and the one in the next lane) brakes while its scenario says so, with ``speedMode`` 0.
- A **follower** drives by a car-following model of SUMO's. While its scenario has it brake it is told a speed with
  ``speedMode`` 1: the lower of that and what its car-following allows.

The car-following model is ``krauss``, SUMO's default, another law than the convoy world's, or ``idm``, the same law in
SUMO's code. The first is the second opinion. The second shows that nothing else differs: with it, episodes end as they
do in the convoy world. Both have the convoy world's acceleration, comfortable deceleration and standstill gap, and a
headway with which the convoy starts in equilibrium.

Every convoy has two roads of its own, one for its lane and one for the next lane. libsumo is one simulation a process,
so :data:`BLOCK` convoys share a simulation and one block follows the other; evaluation runs more processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError, QuantError
from quant.observation.observations import F32, Mask
from quant.policy.policy import Discrete
from quant.worlds.convoy import ACTIONS, ConvoyVectorEnv
from quant.worlds.convoy_scenarios import BEHIND, BESIDE, COLUMNS, EGO_SCALE, PEER_SCALE, SLOTS, STEP_S, STEPS
from quant.worlds.kinematics import IDM_ACCELERATION, IDM_COMFORT, LENGTH, STANDSTILL
from quant.worlds.scenarios import SLICES, ScenarioSet, canonical
from quant.worlds.world import CONVOY, World

SUMO = "sumo"
"""The specification of this world."""
BLOCK = 64
"""Convoys in one simulation."""
_EGO = SLOTS
"""Where the ego stands among the vehicles of a convoy: behind the peers' slots."""

OBEY = 0
"""``speedMode``: SUMO checks nothing. With its default, 31, it brakes for the policy, which then cannot collide."""
KEEP_SAFE = 1
"""``speedMode``: the safe speed of the car-following model is kept, and nothing else."""
MODELS = {"krauss": "Krauss", "idm": "IDM"}
"""SUMO's names of the car-following models."""
_VEHICLE = f'length="{LENGTH}" sigma="0" speedFactor="1" speedDev="0" accel="{IDM_ACCELERATION}" decel="{IDM_COMFORT}"'
"""Also of the ego, whom it does not bind: a Krauss follower reckons with what the vehicle ahead declares."""
_EMERGENCY = 9.0
"""m/s^2: the hardest a peer brakes, as in the convoy world."""

_ORIGIN, _ROAD = 300.0, 4000.0
"""m: where on its road the ego starts, and the road's length. The widest scenario reaches from 146 m behind the ego to
1,700 m ahead of it."""
_SPACING = 50.0
"""m between two roads."""
_FASTEST = 200.0
"""m/s: limit of the roads, and of the ego, who keeps none."""
_OPTIONS = (
    ("--step-length", str(STEP_S)),
    # x += (v + v') / 2 dt, as the convoy world does; SUMO's default is x += v' dt.
    ("--step-method.ballistic", "true"),
    # Seen and reported, with nobody removed or moved. "none" would not even look.
    ("--collision.action", "warn"),
    # Vehicles that touch collide. By default those do that are nearer than a tenth of minGap.
    ("--collision.mingap-factor", "0"),
    ("--time-to-teleport", "-1"),
    ("--default.speeddev", "0"),
    ("--no-step-log", "true"),
    ("--no-warnings", "true"),
    # Schemas are read again for every block: half of the time of a load.
    ("--xml-validation", "never"),
    ("--xml-validation.net", "never"),
)
_simulations = count(1)
_running = 0
"""Which simulation of this process libsumo holds; 0 before the first."""


@dataclass(frozen=True)
class SumoWorld(World):
    """The convoy world's scenarios in SUMO; made by :func:`sumo_world`.

    Attributes:
        following: key of :data:`MODELS`.
    """

    following: str = "krauss"

    def draw(self, purpose: str, seed: int, counts: Mapping[str, int]) -> ScenarioSet:
        """The convoy world's own draw: there is no other scenario here."""
        from quant.worlds import convoy_scenarios

        return convoy_scenarios.draw(purpose, seed, counts)

    def make(self, scenarios: ScenarioSet) -> SumoVectorEnv:
        """A :class:`SumoVectorEnv`, of :data:`BLOCK` convoys at most if it is to be fast."""
        self.check(scenarios)
        return SumoVectorEnv(scenarios, self.following)

    def check(self, scenarios: ScenarioSet, where: object = "scenarios") -> None:
        """Sees that ``scenarios`` are the convoy world's.

        Raises:
            InputError: they are another world's.
        """
        if scenarios.world != CONVOY:
            raise InputError(
                f"scenarios of {scenarios.world}",
                where=where,
                expected=f"scenarios of {CONVOY}",
                hint="the second opinion is on the convoy world only: SUMO has no other scenarios",
            )


def sumo_world(following: str = "krauss") -> SumoWorld:
    """The world, whether or not libsumo is installed.

    Args:
        following: car-following model of the peers, a key of :data:`MODELS`.

    Raises:
        InputError: there is no such model.
    """
    if following not in MODELS:
        raise InputError(f"no car-following model {following!r}", where=SUMO, expected=" or ".join(MODELS))
    return SumoWorld(
        spec=SUMO,
        kwargs=canonical({"following": following}),
        action_space=Discrete(len(ACTIONS)),
        ego_size=len(EGO_SCALE),
        peer_size=len(PEER_SCALE),
        max_peers=SLOTS,
        slices=SLICES,
        columns=COLUMNS,
        max_steps=STEPS,
        batch=BLOCK,
        following=following,
    )


def sumo_version() -> str:
    """Version of the installed libsumo, as ``1.28.0``.

    Raises:
        InputError: it is not installed.
    """
    return str(_libsumo().getVersion()[1]).removeprefix("SUMO ")


class SumoVectorEnv(ConvoyVectorEnv):
    """One convoy for each scenario, moved by SUMO; observations, info and freezing are those of the base class.

    A process has one simulation: starting another ends this one, whose next step then raises an InputError.

    Args:
        scenarios: as for :class:`quant.worlds.convoy.ConvoyVectorEnv`.
        following: car-following model of the peers, a key of :data:`MODELS`.
    """

    def __init__(self, scenarios: ScenarioSet, following: str = "krauss") -> None:
        super().__init__(scenarios)
        self._following = following

    def _start(self) -> None:
        super()._start()
        ego = np.full((self.num_envs, 1), _ORIGIN)
        self._front = np.concatenate([self._x + ego, ego], axis=1)
        self._speed = np.concatenate([self._v, self._ego_v[:, None]], axis=1).astype(np.float64)
        self._there = np.concatenate([self._present, np.ones((self.num_envs, 1), np.bool_)], axis=1)
        self._names = [[f"{row}.{slot}" for slot in range(SLOTS + 1)] for row in range(self.num_envs)]
        self._script_on: Mask = np.zeros(self._present.shape, np.bool_)
        self._hit: Mask = np.zeros(self.num_envs, np.bool_)
        self._simulation = _load(_network(self.num_envs), _routes(self))
        self._vehicle = _libsumo().vehicle
        self._count = int(self._there.sum())
        self._check_count()
        for row, slot in np.argwhere(self._there).tolist():
            alone = slot == _EGO or self._leads[row, slot]
            self._vehicle.setSpeedMode(self._names[row][slot], OBEY if alone else KEEP_SAFE)
            self._vehicle.setLaneChangeMode(self._names[row][slot], 0)
        self._follow(self._running > 0)

    def _follow(self, rows: Mask) -> None:
        """Notes whose state is read from now on: everybody of the convoys ``rows``."""
        self._moving = rows
        self._places = np.nonzero(self._there & rows[:, None])
        self._read = [self._names[row][slot] for row, slot in zip(*self._places, strict=True)]

    def _drive(self, command: F32) -> None:
        """Tells the ego and the scripted peers their speeds, and lets SUMO move everybody on by one step."""
        if self._simulation != _running:
            raise InputError(
                "another simulation was started in this process",
                where=SUMO,
                expected="one at a time: libsumo holds a single simulation",
                hint="finish with one environment before the next is made, or use another process",
            )
        self._stop_ended()
        self._tell_egos(command)
        self._tell_peers()
        _libsumo().simulationStep()
        self._check_count()
        before = self._speed.copy()
        self._front[self._places] = list(map(self._vehicle.getLanePosition, self._read))
        self._speed[self._places] = list(map(self._vehicle.getSpeed, self._read))
        self._take(before)
        for collision in _libsumo().simulation.getCollisions():
            self._note(collision.collider, collision.victim)

    def _stop_ended(self) -> None:
        """Convoys that ended stand still from now on, and nobody asks for them."""
        going = self._running > 0
        for row, slot in np.argwhere(self._there & (self._moving & ~going)[:, None]).tolist():
            self._vehicle.setSpeedMode(self._names[row][slot], OBEY)
            self._vehicle.setSpeed(self._names[row][slot], 0.0)
        if (going != self._moving).any():
            self._follow(going)

    def _tell_egos(self, command: F32) -> None:
        acceleration = self._ego_a + self._response * (command - self._ego_a)
        speeds = self._told(self._speed[:, _EGO], acceleration)
        for row in np.flatnonzero(self._moving).tolist():
            self._vehicle.setSpeed(self._names[row][_EGO], speeds[row])

    def _tell_peers(self) -> None:
        """What the scenario has peers do; who has nothing to do any more is given back to SUMO."""
        p, now = self._values, np.float32(self._t * STEP_S)
        active = (p["event_start"] <= now) & (now < p["event_end"]) & self._present & self._moving[:, None]
        speed = self._speed[:, :SLOTS]
        speeds = self._told(speed, -p["event_deceleration"] * (speed > self._braked_speed))
        for row, slot in np.argwhere(active).tolist():
            self._vehicle.setSpeed(self._names[row][slot], speeds[row][slot])
        for row, slot in np.argwhere(self._script_on & ~active & self._moving[:, None]).tolist():
            self._vehicle.setSpeed(self._names[row][slot], -1.0)
        self._script_on = active

    @staticmethod
    def _told(speed: NDArray[np.float64], acceleration: NDArray[np.floating]) -> Any:
        """Speeds to be driven after the step, m/s. A negative one would hand the vehicle back to SUMO."""
        return np.maximum(speed + acceleration.astype(np.float64) * STEP_S, 0.0).tolist()

    def _take(self, before: NDArray[np.float64]) -> None:
        """SUMO's state as that of the base class."""
        place, speed = (self._front - _ORIGIN).astype(np.float32), self._speed.astype(np.float32)
        acceleration = ((self._speed - before) / STEP_S).astype(np.float32)
        self._x, self._ego_x = place[:, :SLOTS].copy(), place[:, _EGO].copy()
        self._v, self._ego_v = speed[:, :SLOTS].copy(), speed[:, _EGO].copy()
        self._a, self._ego_a = acceleration[:, :SLOTS].copy(), acceleration[:, _EGO].copy()

    def _note(self, *names: str) -> None:
        """A collision counts where the ego is in it."""
        for name in names:
            row, slot = name.split(".")
            if int(slot) == _EGO:
                self._hit[int(row)] = True

    def _collisions(self) -> Mask:
        return self._hit.copy()

    def headways(self) -> F32:
        """(N, 8) s: the time gap each peer wants, so that nobody accelerates or brakes at the start.

        IDM is in equilibrium with the scenario's own, that is how the gaps were made; Krauss, whose gap is v tau, with
        the one that the gaps then are.
        """
        wanted: F32 = self._values["headway"]
        if self._following == "idm":
            return wanted
        ahead = np.roll(self._x, -1, axis=1)
        ahead[:, BEHIND] = self._ego_x
        kept = (ahead - self._x - np.float32(LENGTH + STANDSTILL)) / self._values["speed"][:, None]
        return np.where(self._leads | ~self._present, wanted, kept)

    def _check_count(self) -> None:
        """Whoever left the road or was never let on it would be missed by nobody else."""
        there = self._vehicle.getIDCount()
        if there != self._count:
            raise QuantError(f"SUMO has {there} vehicles of {self._count} on the road", where=f"{SUMO} step {self._t}")


def _libsumo() -> Any:
    try:
        import libsumo
    except ModuleNotFoundError as error:
        raise InputError(
            "libsumo is not installed",
            where=SUMO,
            expected="Eclipse SUMO's library",
            hint="pip install 'quant[sumo]'",
        ) from error
    except ImportError as error:
        raise InputError(
            f"libsumo cannot be loaded: {error}",
            where=SUMO,
            expected="the graphics libraries it is linked with, though it opens no window",
            hint="on Debian or Ubuntu: apt-get install libgl1 libx11-6 libxext6 libxrender1",
        ) from error
    return libsumo


def _load(network: str, routes: str) -> int:
    """Puts a simulation in the place of this process's last one, with all vehicles on the road; gives its number.

    ``load`` where there is one already: it is faster than a new start.
    """
    global _running  # noqa: PLW0603 - libsumo itself is one for each process
    libsumo = _libsumo()
    with TemporaryDirectory(prefix="quant-sumo-") as folder:
        files = {"--net-file": (Path(folder) / "net.xml", network), "--route-files": (Path(folder) / "rou.xml", routes)}
        arguments = [word for option in _OPTIONS for word in option]
        for option, (path, text) in files.items():
            path.write_text(text)
            arguments += [option, str(path)]
        try:
            if _running:
                libsumo.load(arguments)
            else:
                libsumo.start(["sumo", *arguments])
            # The first step moves nobody: it lets everybody onto the road.
            libsumo.simulationStep()
        except Exception as error:
            raise QuantError("SUMO did not start", where=SUMO, hint=str(error)) from error
    _running = next(_simulations)
    return _running


def _network(convoys: int) -> str:
    """Two straight roads a convoy that meet no other, as SUMO's network XML: the convoy's and the next lane's."""
    names = [f"{row}{kind}" for row in range(convoys) for kind in "ab"]
    places = {name: index * _SPACING for index, name in enumerate(names)}
    lines = ['<net version="1.20">']
    for name, y in places.items():
        lane = f'<lane id="{name}_0" index="0" speed="{_FASTEST}" length="{_ROAD}" shape="0,{y} {_ROAD},{y}"/>'
        lines.append(f'<edge id="{name}" from="from{name}" to="to{name}" priority="1">{lane}</edge>')
    for name, y in places.items():
        for end, x, comes in (("from", 0.0, ""), ("to", _ROAD, f"{name}_0")):
            shape = f"{x},{y} {x},{y + 3}"
            lines.append(
                f'<junction id="{end}{name}" type="dead_end" x="{x}" y="{y}" incLanes="{comes}" intLanes="" '
                f'shape="{shape}"/>'
            )
    return "\n".join([*lines, "</net>", ""])


def _routes(env: SumoVectorEnv) -> str:
    """Every vehicle with a type of its own, where and as fast as the scenario has it start."""
    return "\n".join(["<routes>", *_vehicles(env), "</routes>", ""])


def _vehicles(env: SumoVectorEnv) -> Iterator[str]:
    headways = env.headways()
    for row, names in enumerate(env._names):
        for kind in "ab":
            yield f'<route id="{row}{kind}" edges="{row}{kind}"/>'
        for slot in np.flatnonzero(env._there[row]).tolist():
            own = f'maxSpeed="{_FASTEST}" minGap="0"'
            if slot != _EGO:
                own = (
                    f'maxSpeed="{env._free[row, slot]}" minGap="{STANDSTILL}" tau="{headways[row, slot]}" '
                    f'emergencyDecel="{_EMERGENCY}" carFollowModel="{MODELS[env._following]}"'
                )
            yield f'<vType id="{names[slot]}" {_VEHICLE} {own}/>'
            # Without checks, or SUMO would keep back whom it finds too near or too fast.
            yield (
                f'<vehicle id="{names[slot]}" type="{names[slot]}" route="{row}{"b" if slot == BESIDE else "a"}" '
                f'depart="0" departPos="{env._front[row, slot]}" departSpeed="{env._speed[row, slot]}" '
                'insertionChecks="none"/>'
            )
