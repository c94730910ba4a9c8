"""Functions of the set of peers that the field's ego states carry, in the normalization of the peers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quant.observation.observations import F32, Mask

REL_X, REL_Y, REL_SPEED, REL_HEADING = "rel_x", "rel_y", "rel_speed", "rel_heading"
ACCELERATION, AGE, SPEED, HEADING = "acceleration", "age", "speed", "heading"
NUMBER, LOWEST_ACCELERATION, LARGEST_CLOSING = (
    "number of peers",
    "lowest peer acceleration",
    "largest closing speed",
)
BRAKING_RECEIVED = "braking received"


@dataclass(frozen=True)
class PeerFunction:
    """A function of the peers present.

    Attributes:
        name: of `FUNCTIONS`.
        of: (N, P, F) peers and (N, P) mask -> (N,) float32; 0 without peers.
        combine: of two disjoint sets of peers, from the values of each.
    """

    name: str
    of: Callable[[F32, Mask], F32]
    combine: Callable[[F32, F32], F32]


def _count(peers: F32, mask: Mask) -> F32:
    return np.asarray(mask.sum(axis=1) / mask.shape[1], np.float32)


def _lowest(feature: int) -> Callable[[F32, Mask], F32]:
    def lowest(peers: F32, mask: Mask) -> F32:
        values = np.where(mask, peers[:, :, feature], np.float32(0))
        return np.asarray(values.min(axis=1, initial=0), np.float32)

    return lowest


def _largest_closing(feature: int) -> Callable[[F32, Mask], F32]:
    def largest(peers: F32, mask: Mask) -> F32:
        closing = np.where(mask, -peers[:, :, feature], np.float32(0))
        return np.asarray(closing.max(axis=1, initial=0), np.float32)

    return largest


FUNCTIONS = (NUMBER, LOWEST_ACCELERATION, LARGEST_CLOSING)
"""Share of the slots that are taken; lowest acceleration, at most 0; largest closing speed, 0 or more."""


def functions_of(peers: Sequence[str]) -> dict[str, PeerFunction]:
    """The functions that can be computed of peers with these columns, by name."""
    found = {NUMBER: PeerFunction(NUMBER, _count, np.add)}
    if ACCELERATION in peers:
        found[LOWEST_ACCELERATION] = PeerFunction(LOWEST_ACCELERATION, _lowest(peers.index(ACCELERATION)), np.minimum)
    if REL_SPEED in peers:
        found[LARGEST_CLOSING] = PeerFunction(LARGEST_CLOSING, _largest_closing(peers.index(REL_SPEED)), np.maximum)
    return found
