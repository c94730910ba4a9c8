"""How vehicles follow each other, and what braking a situation requires, in arithmetic that is exact everywhere."""

from __future__ import annotations

import numpy as np

from quant.observation.observations import F32
from quant.worlds.convoy_scenarios import STEP_S

LENGTH = 4.5
"""m, of every vehicle."""
STANDSTILL = 2.0
"""m of gap that standing vehicles keep."""
IDM_ACCELERATION, IDM_COMFORT = 1.5, 2.0
"""m/s^2: a and b of the Intelligent Driver Model."""

_STEP_RATE = np.float32(1 / STEP_S)
_IDM_CLOSING = np.float32(1 / (2 * (IDM_ACCELERATION * IDM_COMFORT) ** 0.5))


def required_deceleration(gap: F32, speed: F32, peer_speed: F32, peer_acceleration: F32) -> F32:
    """The constant deceleration with which the ego comes no nearer than 0 to a peer ahead.

    The peer is taken to keep its deceleration until it stands (to keep its speed if it accelerates). Where the two
    reach the same speed while the peer still moves, b = |a_p| + (v - v_p)^2 / (2 gap); otherwise the ego has to stop
    behind the place where the peer stops, b = v^2 / (2 (gap + v_p^2 / (2 |a_p|))). These are the usual cases of the
    required deceleration of collision avoidance, e.g. Brannstrom, Coelingh, Sjoberg, IEEE T-ITS 11 (2010), 658.

    Args:
        gap: any shape, float32, m, less the clearance; below 0.1 m it counts as 0.1 m.
        speed: m/s of the ego.
        peer_speed: m/s.
        peer_acceleration: m/s^2.

    Returns:
        The same shape, float32, m/s^2, 0 where nothing is required.
    """
    gap = np.maximum(gap, np.float32(0.1))
    braking = np.maximum(-peer_acceleration, np.float32(1e-3))
    closing = np.maximum(speed - peer_speed, np.float32(0))
    moving = closing * closing / (2 * gap) + braking * (closing > 0)
    standing = speed * speed / (2 * gap + peer_speed * peer_speed / braking)
    # Equal speeds are reached after 2 gap / closing; the peer stands after peer_speed / braking.
    reached = 2 * gap * braking <= closing * peer_speed
    required: F32 = np.where(reached, moving, standing)
    return required


def idm(gap: F32, speed: F32, closing: F32, headway: F32, free_speed: F32) -> F32:
    """Acceleration of the Intelligent Driver Model, m/s^2, in the common shape of its float32 arguments.

    Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and microscopic simulations",
    Phys. Rev. E 62 (2000), 1805.

    Args:
        gap: m between the bumpers; below 0.5 m it counts as 0.5 m.
        speed: m/s.
        closing: m/s, the speed less that of the vehicle ahead.
        headway: s, the time gap wanted.
        free_speed: m/s, driven on an empty road.
    """
    desired = np.maximum(speed * (headway + closing * _IDM_CLOSING), np.float32(0)) + np.float32(STANDSTILL)
    crowding = desired / np.maximum(gap, np.float32(0.5))
    ratio = speed / free_speed
    ratio *= ratio
    acceleration = np.float32(IDM_ACCELERATION) * (1 - ratio * ratio - crowding * crowding)
    return acceleration.astype(np.float32, copy=False)


def move(x: F32, v: F32, acceleration: F32, dt: F32 | np.float32) -> tuple[F32, F32, F32]:
    """Place, speed and acceleration after ``dt`` seconds of ``acceleration``, of any shape.

    Nobody drives backwards, and who stands does not decelerate.
    """
    faster = np.maximum(v + acceleration * dt, np.float32(0))
    moved = x + (v + faster) * (np.float32(0.5) * dt)
    return moved, faster, np.maximum(acceleration, -v * _STEP_RATE)
