"""When a decision acts: the two sides between which an action is missed or made for nothing.

Of a Box, a component acts above half of its range and rests below a tenth of it; what lies between is neither. Of a
Discrete, whose actions are taken to stand in the order of their strength, the two strongest act and the two weakest
rest; with fewer than four actions, the strongest and the weakest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.policy.policy import ActionSpace, Discrete

Bits = NDArray[np.bool_]
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

    def apart(self, other: Sides) -> tuple[Bits, Bits]:
        """(N, C) where this one acts and the other rests, an action it misses; and the reverse, a false one."""
        return self.acts & other.rests, self.rests & other.acts


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
