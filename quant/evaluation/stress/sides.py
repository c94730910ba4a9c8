"""When a decision acts: the two sides between which an action is missed or made for nothing.

Of a Box, a component acts above half of its range and rests below a tenth of it; what lies between is neither. Of a
Discrete, whose actions are taken to stand in the order of their strength, the two strongest act and the two weakest
rest; with fewer than four actions, the strongest and the weakest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.statistics import Bits
from quant.observation.observations import F32
from quant.policy.policy import ActionSpace, Discrete

STEPS = 255
"""Of an int8 over a range."""
ACTS, RESTS = 0.5, 0.1
"""Of a component's range: above the first it acts, below the second it rests."""
FROM_TWO = 4
"""Discrete actions from which on two of them are strong and two are weak."""


@dataclass(frozen=True)
class Sides:
    """On which side each component of a decision is; a Discrete has one component.

    Attributes:
        acts, rests: (N, C).
    """

    acts: Bits
    rests: Bits


def components(space: ActionSpace) -> int:
    """C."""
    return 1 if isinstance(space, Discrete) else space.width


def strongest(space: Discrete) -> int:
    """How many actions are strong, and how many are weak."""
    return 2 if space.n >= FROM_TWO else 1 if space.n > 1 else 0


def sides_of(space: ActionSpace, values: F32) -> Sides:
    """Of (N, A) head outputs."""
    if isinstance(space, Discrete):
        chosen, strong = space.decide(values)[:, None], strongest(space)
        return Sides(chosen >= space.n - strong, chosen < strong)
    clipped = space.clip(values)
    acting, resting = edges(space)
    return Sides(clipped > acting, clipped < resting)


def edges(space: ActionSpace) -> tuple[F32, F32]:
    """(A,) above what a Box's component acts, and below what it rests."""
    assert not isinstance(space, Discrete)
    low, high = np.array(space.low, np.float64), np.array(space.high, np.float64)
    acting, resting = (low + share * (high - low) for share in (ACTS, RESTS))
    return acting.astype(np.float32), resting.astype(np.float32)


def slack_of(space: ActionSpace, span: float) -> float:
    """What no int8 can tell apart: of a Discrete two logits, each off by a step of their range; of a Box nothing.

    Between the sides of a Box lies four tenths of its range, between those of a Discrete there is nothing.
    """
    return 2 * span / STEPS if isinstance(space, Discrete) else 0.0


def margins(space: ActionSpace, values: F32, component: NDArray[np.int64], acts: Bits) -> tuple[F32, F32]:
    """How far decisions are from leaving their side, and how that changes with the head's outputs.

    Args:
        space: what the outputs mean.
        values: (N, A) head outputs, not clipped.
        component: (N,) which.
        acts: (N,) True where the side is that of acting, False where it is that of resting.

    Returns:
        (N,), above 0 on the side; (N, A) its gradient.
    """
    rows = np.arange(len(values))
    slope = np.zeros(values.shape, np.float32)
    if not isinstance(space, Discrete):
        acting, resting = edges(space)
        slope[rows, component] = np.where(acts, np.float32(1), np.float32(-1))
        own = values[rows, component]
        return np.where(acts, own - acting[component], resting[component] - own), slope
    strong, actions = strongest(space), np.arange(space.n)
    inside = np.where(acts[:, None], actions >= space.n - strong, actions < strong)
    best_in = np.where(inside, values, -np.inf).argmax(axis=1)
    best_out = np.where(inside, -np.inf, values).argmax(axis=1)
    slope[rows, best_in], slope[rows, best_out] = 1, -1
    return values[rows, best_in] - values[rows, best_out], slope
