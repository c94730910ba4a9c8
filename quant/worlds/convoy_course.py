"""What happens in a set of convoys whoever drives: how the peers that do not follow the ego move, and what radio does.

A policy moves the ego and, through it, the peer behind. The peers ahead and the one in the next lane drive as their
scenario has it, and the luck of every message is drawn before anything has moved. So both are computed once for a set
of scenarios and are the same arrays for every driver: :func:`course` and :func:`luck` remember the set they were last
asked for.

Arrays here have the peer's slot before the convoy, so that what differs from convoy to convoy meets long rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Mask
from quant.worlds.convoy_scenarios import AHEAD_SLOTS, BEHIND, BESIDE, SLOTS, STEP_S, STEPS
from quant.worlds.kinematics import IDM_ACCELERATION, LENGTH, STANDSTILL, idm, move
from quant.worlds.scenarios import ScenarioSet

DELAYS = 3
"""A message is there at the decision it was taken before, at the next, or at the one after that."""
FREE_SPEED = 1.4
"""Followers would drive so much faster than the convoy if the road were free."""

_PEER_HARDEST = np.float32(-9.0)
_FREE_ROAD = np.float32(1e5)
_KINDS = 8
"""16-bit numbers of luck a message: loss, reception, latency, one spare, and noise of x, y, speed and acceleration."""
_WORD = 65536.0

_Made = TypeVar("_Made", "Luck", "Course")

Values = Mapping[str, F32]
"""A set's parameters, (N,) or (N, 8) float32; the latter lie in memory slot by slot."""


@dataclass(frozen=True, eq=False)
class Luck:
    """What happens to each message, T = 201 times for every slot of N convoys.

    Attributes:
        loss: (T, 8, N) float32, held against a threshold that grows with the distance, in 1/65536.
        burst: (T, 8, N) float32, what that threshold is at least, in 1/65536: 0 while reception is good.
        late: (T, 8, N) int8, decisions a message is late: 0, 1 or 2.
        noise: (T, 4, 8, N) float32, error of x (m), y (m), speed (m/s) and acceleration (m/s^2).
    """

    loss: F32
    burst: F32
    late: NDArray[np.int8]
    noise: F32


@dataclass(frozen=True, eq=False)
class Course:
    """How the peers move that do not follow the ego; the slot of the one behind holds nothing of meaning.

    Attributes:
        x: (T, 8, N) m.
        v: (T, 8, N) m/s.
        a: (T, 8, N) m/s^2.
    """

    x: F32
    v: F32
    a: F32


def values_of(scenarios: ScenarioSet) -> Values:
    """The parameters in float32, those of slots slot by slot in memory."""
    return {name: np.asfortranarray(column, np.float32) for name, column in scenarios.parameters.items()}


@lru_cache(maxsize=1)
def luck(scenarios: ScenarioSet) -> Luck:
    """The luck of every message of the set, each episode's from its own generator."""
    p, words = values_of(scenarios), _words(scenarios)
    shape = (STEPS + 1, SLOTS, len(scenarios))
    jitter = np.maximum(p["jitter"], np.float32(1))
    # A message taken `phase` before a decision is there at that decision, at the next or at the one after it.
    in_time = (p["phase"].T - p["latency"]) * np.float32(_WORD) / jitter
    one_late = np.float32(100 * _WORD) / jitter + in_time
    turn_bad = np.float32(_WORD) * p["burst_enter"]
    stay_bad = np.float32(_WORD) * (1 - p["burst_leave"] - p["burst_enter"])
    # Sixteen fair coins have mean 8 and standard deviation 2.
    spread = [np.float32(0.5) * p[f"noise_{name}"] for name in ("position", "position", "speed", "acceleration")]
    made = Luck(
        np.empty(shape, np.float32),
        np.empty(shape, np.float32),
        np.empty(shape, np.int8),
        np.empty((STEPS + 1, 4, *shape[1:]), np.float32),
    )
    lost_burst = np.float32(_WORD) * p["loss_burst"]
    bad = np.zeros(shape[1:], np.float32)
    for t in range(STEPS + 1):
        drawn = np.ascontiguousarray(words[t].swapaxes(1, 2))
        made.loss[t] = drawn[0]
        bad = (drawn[1] < turn_bad + bad * stay_bad).astype(np.float32)
        np.multiply(bad, lost_burst, out=made.burst[t])
        np.add(drawn[2] > in_time, drawn[2] > one_late, out=made.late[t], dtype=np.int8)
        coins = np.bitwise_count(drawn[4:8]).astype(np.float32) - np.float32(8)
        for kind in range(4):
            np.multiply(coins[kind], spread[kind], out=made.noise[t, kind])
        made.noise[t, 0] += p["bias_x"].T
    return _kept(made)


@lru_cache(maxsize=1)
def course(scenarios: ScenarioSet) -> Course:
    """The motion of the peers that do not follow the ego, from the start to the end of the episodes."""
    p = values_of(scenarios)
    shape = (STEPS + 1, SLOTS, len(scenarios))
    made = Course(*(np.empty(shape, np.float32) for _ in fields(Course)))
    x, v = start(p)
    a = np.zeros_like(v)
    follows = (~leads(p["ahead"])).astype(np.float32)
    # Behind the last slot ahead comes none of them.
    follows[AHEAD_SLOTS - 1 : BEHIND + 1] = 0
    free_road, free_speed = _FREE_ROAD * (1 - follows), free_speeds(p)
    braked = (p["event_speed"] * p["speed"][:, None]).T
    for t in range(STEPS + 1):
        made.x[t], made.v[t], made.a[t] = x, v, a
        gap = (_next(x) - x - np.float32(LENGTH)) * follows + free_road
        idle = idm(gap, v, (v - _next(v)) * follows, p["headway"].T, free_speed)
        x, v, a = move(x, v, scripted(p, slice(None), t, idle, v, braked), np.float32(STEP_S))
    return _kept(made)


def leads(ahead: F32) -> Mask:
    """(8, N) whether a slot drives on a free road: the first of the lane, and the one in the next lane."""
    slot = np.arange(SLOTS)[:, None]
    return np.asarray((slot == ahead - 1) | (slot == BESIDE))


def free_speeds(p: Values) -> F32:
    """(8, N) m/s. A leader keeps the convoy's speed; followers would drive faster."""
    return np.where(leads(p["ahead"]), p["speed"], p["speed"] * np.float32(FREE_SPEED))


def start(p: Values) -> tuple[F32, F32]:
    """(8, N) places and speeds: all drive alike, with the gap at which IDM neither accelerates nor brakes."""
    speed = p["speed"]
    stretch = np.float32((1 - FREE_SPEED**-4) ** -0.5)
    # The gap to the peer of slot 0 is the driver's, that to slot 1 belongs to the peer of slot 0, and so on.
    headways = np.concatenate([p["driver_headway"][None], p["headway"].T])
    gaps = (STANDSTILL + speed * headways) * stretch + LENGTH
    x = np.cumsum(gaps[:SLOTS], axis=0, dtype=np.float32)
    x[BEHIND] = -gaps[1 + BEHIND]
    x[BESIDE] = p["beside_offset"]
    return x, np.repeat(speed[None], SLOTS, axis=0)


def scripted(p: Values, slots: slice | int, t: int, idle: F32, v: F32, braked: F32) -> F32:
    """m/s^2: what the scenario has the peers of ``slots`` do at step ``t``, and what IDM does where that is less.

    Args:
        p: the set's parameters.
        slots: of the peers asked for; one number for (N,) arrays, a slice for (slots, N).
        t: the step.
        idle: m/s^2, of the Intelligent Driver Model.
        v: m/s, the peers' speeds.
        braked: m/s, down to which each brakes.
    """
    now = np.float32(t * STEP_S)
    active = (p["event_start"].T[slots] <= now) & (now < p["event_end"].T[slots])
    braking = p["event_deceleration"].T[slots] * (v > braked)
    told = np.float32(10) - active * (np.float32(10) + braking)
    command: F32 = np.clip(np.minimum(idle, told), _PEER_HARDEST, np.float32(IDM_ACCELERATION))
    return command


def _next(values: F32) -> F32:
    """(8, N): of the vehicle in the next slot; that of the last slot is its own."""
    return np.concatenate([values[1:], values[-1:]])


def _words(scenarios: ScenarioSet) -> NDArray[np.uint16]:
    """(T, 8 kinds, N, 8 slots) uint16, each episode's from its own generator, before anything has moved."""
    count = (STEPS + 1) * _KINDS * SLOTS // 4
    raw = np.empty((len(scenarios), count), np.uint64)
    for row, generator in zip(raw, scenarios.generators(), strict=True):
        row[:] = generator.bit_generator.random_raw(count)
    # Eight slots of 16 bits are one element here, so that transposing moves 16 bytes at once.
    packed = raw.astype("<u8", copy=False).view("V16").reshape(len(scenarios), STEPS + 1, _KINDS)
    return np.ascontiguousarray(packed.transpose(1, 2, 0)).view("<u2").reshape(STEPS + 1, _KINDS, -1, SLOTS)


def _kept(made: _Made) -> _Made:
    """What several drivers are given is not to be written to."""
    for item in fields(made):
        getattr(made, item.name).flags.writeable = False
    return made
