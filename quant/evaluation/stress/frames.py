"""The frames of a stress test: chunk by chunk, each the same whoever makes it and in whatever order.

Every frame within the bounds can occur by the contract: functions of the peers are computed, older frames of a stack
belong to the newest, peers lie in the field of view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from quant.dataset.filling import coordinates, fill, free_columns
from quant.dataset.moving import moved
from quant.evaluation.stress.found import BEYOND, CORNERS, GROUPS, SPREAD, SWEPT
from quant.evaluation.stress.margins import STEPS
from quant.observation.contract import Column, Contract
from quant.observation.functions import NUMBER
from quant.observation.observations import F32, Observations

SHARES = {SPREAD: 0.6, CORNERS: 0.15, SWEPT: 0.25}
"""Of the frames asked for, which lie within the bounds."""
BEYOND_SHARE = 1 / 16
"""Frames beyond the bounds, as a share of those within, which they come on top of."""
BEYOND_STEPS = 4
"""How far beyond its bounds a value goes, at most."""
OUTSIDE = 0.25
"""Share of the free values that do, in a frame of that group."""
POSITIONS = 32
"""Places over its whole range that a feature is swept to, its ends included."""
CHUNK = 1 << 14
"""Frames made at once; a power of two, as low-discrepancy points ask for."""
CHUNK_VALUES = 1 << 22
"""Peers' values made at once, at the most: with many slots a chunk has fewer frames."""
MOST_RECORDED = 4096
"""Recorded frames that are swept, at the most."""
MOST_DIMENSIONS = qmc.Sobol.MAXDIM


@dataclass(frozen=True, eq=False)
class Sampling:
    """What frames are made of.

    Attributes:
        contract: with a bound everywhere.
        recorded: frames that were recorded or driven, to be swept.
        frames: how many within the bounds.
        seed: of all that is drawn.
    """

    contract: Contract
    recorded: Observations
    frames: int
    seed: int

    @property
    def chunk_frames(self) -> int:
        """Frames of a chunk: as the number of slots and features allows."""
        peers = max(self.contract.max_peers * len(self.contract.peers), 1)
        return min(CHUNK, 1 << max(int(math.log2(CHUNK_VALUES / peers)), 4))

    @property
    def counts(self) -> dict[str, int]:
        """Frames of each group."""
        counts = {name: round(share * self.frames) for name, share in SHARES.items()}
        if not len(self.recorded):
            counts[SWEPT] = 0
        counts[SPREAD] += self.frames - sum(counts.values())
        return counts | {BEYOND: math.ceil(BEYOND_SHARE * self.frames)}

    def chunks(self) -> tuple[Chunk, ...]:
        """All of them."""
        return tuple(self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        for group, count in self.counts.items():
            for first in range(0, count, self.chunk_frames):
                yield Chunk(group, first, min(self.chunk_frames, count - first))

    def make(self, chunk: Chunk) -> Observations:
        """The frames of one chunk."""
        seed = (self.seed, GROUPS.index(chunk.group), chunk.first)
        match chunk.group:
            case "swept":
                return _swept(self, chunk, np.random.default_rng(seed))
            case "spread":
                points = self._low_discrepancy(chunk, np.random.default_rng(seed))
                return fill(self.contract, chunk.frames, seed, points=points)
            case "corners":
                ends = np.random.default_rng((*seed, 1)).integers(2, size=(chunk.frames, coordinates(self.contract)))
                return fill(self.contract, chunk.frames, seed, points=ends.astype(np.float32))
            case "beyond":
                return fill(widened(self.contract), chunk.frames, seed, points=_outside(self.contract, chunk, seed))
        raise ValueError(f"no frames are made for {chunk.group}")

    def _low_discrepancy(self, chunk: Chunk, generator: np.random.Generator) -> F32:
        """This chunk's points of one sequence; where it has fewer dimensions than needed, the last are a generator's.

        A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing points", Journal of Complexity 14, 1998.
        """
        dimensions = coordinates(self.contract)
        sequence = qmc.Sobol(min(dimensions, MOST_DIMENSIONS), rng=np.random.default_rng((self.seed, 0)))
        if chunk.first:
            sequence.fast_forward(chunk.first)
        points = np.asarray(sequence.random(self.chunk_frames)[: chunk.frames], np.float32)
        others = generator.random((chunk.frames, max(dimensions - MOST_DIMENSIONS, 0)), np.float32)
        return np.concatenate([points, others], axis=1)


@dataclass(frozen=True)
class Chunk:
    """So many frames of a group, from the ``first`` on."""

    group: str
    first: int
    frames: int

    @property
    def within(self) -> bool:
        """They lie within the bounds."""
        return self.group != BEYOND


def steps_of(columns: Sequence[Column]) -> F32:
    """(K,) one step of an int8 over each column's range."""
    ends = [(one.low or 0.0, one.high or 0.0) for one in columns]
    return np.array([(high - low) / STEPS for low, high in ends], np.float32)


def widened(contract: Contract) -> Contract:
    """The contract with bounds a few steps further; the number of peers stays what it can be.

    A function of the peers goes as far as they do, whose steps may be larger than its own.
    """

    def wider(column: Column) -> Column:
        if column.function == NUMBER or column.low is None or column.high is None:
            return column
        steps = STEPS if column.function else BEYOND_STEPS
        room = steps * (column.high - column.low) / STEPS
        return replace(column, low=column.low - room, high=column.high + room)

    return replace(contract, ego=tuple(map(wider, contract.ego)), peers=tuple(map(wider, contract.peers)))


def _outside(contract: Contract, chunk: Chunk, seed: Sequence[int]) -> F32:
    """Points of the widened range: some values at its very ends, and of the ego one at least."""
    generator = np.random.default_rng((*seed, 1))
    shape = chunk.frames, coordinates(contract)
    points = generator.random(shape, np.float32)
    out = generator.random(shape, np.float32) < OUTSIDE
    out[np.arange(chunk.frames), generator.integers(max(len(free_columns(contract)), 1), size=chunk.frames)] = True
    return np.where(out, np.rint(points), points).astype(np.float32)


def _swept(sampling: Sampling, chunk: Chunk, generator: np.random.Generator) -> Observations:
    """Recorded frames with one feature of the ego, of one of the peers, or the number of peers swept over its range."""
    contract, recorded = sampling.contract, sampling.recorded
    free, width = free_columns(contract), len(contract.peers)
    kinds = len(free) + width + 1
    index = chunk.first + np.arange(chunk.frames)
    position, rest = index % POSITIONS, index // POSITIONS
    kind, row = rest % kinds, rest // kinds
    rows = max(-(-sampling.counts[SWEPT] // (POSITIONS * kinds)), 1)
    base = recorded[_evenly(row, rows, len(recorded))]
    share = (position / (POSITIONS - 1)).astype(np.float32)
    ego, peers, mask = base.ego.copy(), base.peers.copy(), base.mask.copy()
    low, high = contract.bounds(peers=False)
    for place, column in enumerate(free):
        own = kind == place
        ego[own, column] = low[column] + share[own] * (high[column] - low[column])
    low, high = contract.bounds(peers=True)
    # Peers stand in the first slots; a frame without any gets one.
    feature = kind - len(free)
    own = (feature >= 0) & (feature < width)
    mask[own & ~mask.any(axis=1), 0] = True
    present = mask.sum(axis=1)
    who = (generator.random(chunk.frames) * present).astype(np.int64)
    chosen = np.flatnonzero(own)
    of = feature[chosen]
    peers[chosen, who[chosen], of] = low[of] + share[chosen] * (high[of] - low[of])
    counted = np.flatnonzero(feature == width)
    strangers = low + generator.random((len(counted), *peers.shape[1:]), np.float32) * (high - low)
    there = mask[counted]
    mask[counted] = np.arange(mask.shape[1]) < np.rint(share[counted] * mask.shape[1])[:, None]
    peers[counted] = np.where(there[:, :, None], peers[counted], strangers)
    return moved(contract, base, ego, peers, mask)


def _evenly(row: NDArray[np.int64], rows: int, n: int) -> NDArray[np.int64]:
    """Row number ``row`` of ``rows`` that lie evenly over n; all of them again and again where there are more."""
    return (row * n // rows if rows <= n else row % n).astype(np.int64)


def recorded_of(seen: Observations) -> Observations:
    """Of the frames that were seen, evenly so many as are swept at the most."""
    return seen[np.linspace(0, len(seen) - 1, min(len(seen), MOST_RECORDED)).astype(np.int64)]
