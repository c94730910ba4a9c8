"""Policies nobody trained: one that never brakes, one that always brakes, and a hand-written kinematic rule.

All of them drive the convoy world and see what a policy sees: the observation, nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Observations
from quant.worlds.convoy_scenarios import EGO_SCALE, PEER_SCALE
from quant.worlds.kinematics import LENGTH, STANDSTILL, required_deceleration

MAINTAIN, CAUTION, BRAKE, EMERGENCY = range(4)

_CLEARANCE, _REACTION_S = 2.5, 0.3
_LANE_HALF_WIDTH = 2.0
_NOISE = -1.0
"""m/s^2: an acceleration above it counts as none."""
_LEVELS = (2.5, 3.5, 5.5)
"""m/s^2 of required deceleration from which the rule says Caution, Brake, Emergency."""


def neutral(observations: Observations) -> NDArray[np.int64]:
    """(N,) int64: Maintain, always. What the base driver is worth alone."""
    return np.full(len(observations), MAINTAIN, np.int64)


def always_brake(observations: Observations) -> NDArray[np.int64]:
    """(N,) int64: Emergency, always. What never colliding ahead is worth alone."""
    return np.full(len(observations), EMERGENCY, np.int64)


def rule(observations: Observations) -> NDArray[np.int64]:
    """(N,) int64: brakes as hard as the peer that demands most requires.

    Each peer ahead in the lane is carried forward by the age of its message at its measured acceleration; the gap is
    reduced by what the ego's reaction costs and by the room of the vehicles seen in between. The required deceleration
    is that of kinematic collision avoidance: match the peer's speed while it brakes, or stop behind where it stops.
    """
    speed = observations.ego[:, :1] * np.float32(EGO_SCALE[0])
    required = np.max(_required(observations, speed) * _in_lane(observations), axis=1)
    actions: NDArray[np.int64] = np.searchsorted(np.array(_LEVELS, np.float32), required, side="right")
    return actions


def _in_lane(observations: Observations) -> NDArray[np.bool_]:
    """(N, P): present, ahead, and on the ego's lane as far as the road's bend, taken from the heading, tells."""
    forward, left, _, turn, _, _ = _features(observations)
    lateral = left - forward * turn * np.float32(0.5)
    in_lane: NDArray[np.bool_] = observations.mask & (forward > 0) & (np.abs(lateral) < _LANE_HALF_WIDTH)
    return in_lane


def _required(observations: Observations, speed: F32) -> F32:
    forward, _, faster, _, measured, age_ms = _features(observations)
    acceleration = np.where(measured < _NOISE, measured, np.float32(0))
    told = np.maximum(speed + faster, np.float32(0))
    # A braking peer stands after told / -acceleration and moves no further.
    time = np.minimum(age_ms / np.float32(1000), told / np.maximum(-acceleration, np.float32(1e-3)))
    peer_speed = told + acceleration * time
    place = forward + (told + peer_speed) / 2 * time
    taken = LENGTH + _CLEARANCE + _between(observations) * (LENGTH + STANDSTILL)
    gap = place - taken - np.maximum(speed - peer_speed, np.float32(0)) * _REACTION_S
    return required_deceleration(gap.astype(np.float32), speed, peer_speed, acceleration)


def _between(observations: Observations) -> NDArray[np.int64]:
    """(N, P): how many peers in the lane are seen nearer than each."""
    forward, in_lane = observations.peers[:, :, 0], _in_lane(observations)
    nearer = (forward[:, None, :] < forward[:, :, None]) & in_lane[:, None, :]
    counts: NDArray[np.int64] = nearer.sum(axis=2, dtype=np.int64)
    return counts


def _features(observations: Observations) -> tuple[F32, ...]:
    """(N, P) each: m, m, m/s, rad, m/s^2, ms."""
    return tuple(observations.peers[:, :, k] * np.float32(scale) for k, scale in enumerate(PEER_SCALE))
