"""How far a decision is from leaving its side (:mod:`quant.policy.sides`), and what no int8 can tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.policy.policy import ActionSpace, Discrete
from quant.policy.sides import Bits, edges, strongest

STEPS = 255
"""Of an int8 over a range."""


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
