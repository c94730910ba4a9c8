"""Functions of the set of peers that the field's ego states carry, in the normalization of the peers themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Mask

REL_X, REL_Y, REL_SPEED, REL_HEADING = "rel_x", "rel_y", "rel_speed", "rel_heading"
ACCELERATION, AGE, SPEED, HEADING = "acceleration", "age", "speed", "heading"
NUMBER, LOWEST_ACCELERATION, LARGEST_CLOSING = (
    "number of peers",
    "lowest peer acceleration",
    "largest closing speed",
)
BRAKING_RECEIVED = "braking received"
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class PeerFunction:
    """A function of the peers present: how many there are, or the extreme of one of their features.

    Attributes:
        name: what the ego's column is called.
        feature: the peers' column it is of; None where it counts them.
        sign: that the feature is taken with.
        low, high: how far it can go, in the normalization of the peers; the extreme is searched for away from 0.
        column: where the feature stands among the peers' columns; None where it counts them, or nobody said.
    """

    name: str
    feature: str | None
    sign: float
    low: float
    high: float
    column: int | None = None

    def of(self, peers: F32, mask: Mask) -> F32:
        """(N, P, F) peers and (N, P) mask -> (N,) float32; 0 without peers."""
        if self.feature is None:
            return np.asarray(mask.sum(axis=1) / mask.shape[1], np.float32)
        if self.column is None:
            raise ValueError(f"{self.name}: nobody said which of the peers' columns is {self.feature}")
        return np.asarray(self.extreme(peers[:, :, self.column], mask), np.float32)

    def extreme(self, values: NDArray[Real], mask: Mask) -> NDArray[Real]:
        """(N, P) the feature, and the mask -> (N,) of the same dtype; 0 without peers."""
        signed = np.where(mask, values if self.sign > 0 else -values, values.dtype.type(0))
        found = signed.min(axis=1, initial=0) if self.high <= 0 else signed.max(axis=1, initial=0)
        return np.asarray(found, values.dtype)

    def combine(self, one: F32, other: F32) -> F32:
        """Of two disjoint sets of peers, from the values of each."""
        if self.feature is None:
            return np.add(one, other)
        return np.minimum(one, other) if self.high <= 0 else np.maximum(one, other)


KNOWN = {
    one.name: one
    for one in (
        PeerFunction(NUMBER, None, 1.0, 0.0, 1.0),
        PeerFunction(LOWEST_ACCELERATION, ACCELERATION, 1.0, -1.0, 0.0),
        PeerFunction(LARGEST_CLOSING, REL_SPEED, -1.0, 0.0, 1.0),
    )
}
"""Share of the slots that are taken; lowest acceleration, at most 0; largest closing speed, 0 or more."""
FUNCTIONS = tuple(KNOWN)
"""Their names."""


def functions_of(peers: Sequence[str]) -> dict[str, PeerFunction]:
    """The functions that can be computed of peers with these columns, by name."""
    return {
        name: one if one.feature is None else replace(one, column=peers.index(one.feature))
        for name, one in KNOWN.items()
        if one.feature is None or one.feature in peers
    }
