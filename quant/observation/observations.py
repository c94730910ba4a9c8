"""What a set policy sees: the ego's own state and a set of up to P peers, batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

EGO, PEERS, PEER_MASK = "ego", "peers", "peer_mask"
"""The keys of the observation in checkpoints, drives and environments."""


@dataclass(frozen=True)
class Observations:
    """N observations. A peer slot whose mask is False is padding: its content is never read.

    Attributes:
        ego: (N, E) float32, normalized as the policy was trained.
        peers: (N, P, F) float32, normalized as the policy was trained.
        mask: (N, P) bool, True where a peer is present.
    """

    ego: F32
    peers: F32
    mask: Mask

    def __post_init__(self) -> None:
        n = len(self.ego)
        if self.ego.ndim != 2 or self.peers.ndim != 3 or self.mask.shape != self.peers.shape[:2] or len(self.mask) != n:
            raise InputError(
                f"observations do not fit together: ego {self.ego.shape}, peers {self.peers.shape}, "
                f"peer_mask {self.mask.shape}",
                expected="ego (N, E), peers (N, P, F), peer_mask (N, P)",
            )

    def __len__(self) -> int:
        return len(self.ego)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) number of peers present."""
        return np.asarray(self.mask.sum(axis=1, dtype=np.int64))

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Observations:
        return Observations(self.ego[rows], self.peers[rows], self.mask[rows])

    @staticmethod
    def concatenate(parts: Sequence[Observations]) -> Observations:
        """All rows of ``parts`` in order."""
        return Observations(
            np.concatenate([part.ego for part in parts]),
            np.concatenate([part.peers for part in parts]),
            np.concatenate([part.mask for part in parts]),
        )
