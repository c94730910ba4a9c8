"""The peers present, side by side: what a sub-model is given instead of the padded slots of an observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Mask, Observations


@dataclass(frozen=True, eq=False)
class Peers:
    """The M peers present in N observations of P slots, slot after slot.

    Slots come before observations, so that pooling is P operations on whole arrays.

    Attributes:
        features: (F, M) float32.
        mask: (P, N), where a peer is present.
        present: (M,) int64, the place of each in the flattened mask.
    """

    features: F32
    mask: Mask
    present: NDArray[np.int64]

    @staticmethod
    def of(observations: Observations) -> Peers:
        """Gathers the peers present; at least cost where features lie in memory as the convoy world has them."""
        n, p, features = observations.peers.shape
        mask = np.ascontiguousarray(observations.mask.T)
        present = np.flatnonzero(mask)
        planes = observations.peers.T
        if planes.flags.c_contiguous:
            return Peers(planes.reshape(features, -1).take(present, axis=1), mask, present)
        slot, row = np.divmod(present, max(n, 1))
        return Peers(observations.peers.reshape(n * p, features).take(row * p + slot, axis=0).T, mask, present)

    def scattered(self, rows: NDArray[Any], absent: float) -> NDArray[Any]:
        """(M, D) of the peers present -> (P, N, D), ``absent`` elsewhere."""
        slots = np.full((*self.mask.shape, rows.shape[1]), absent, rows.dtype)
        slots.reshape(-1, rows.shape[1])[self.present] = rows
        return slots
