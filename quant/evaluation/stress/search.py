"""From the worst frames to worse ones: a search for the largest difference between float and one candidate.

Differential evolution (R. Storn and K. Price, Journal of Global Optimization 11, 1997; SciPy's) moves the free values
of frames with so many peers within the declared bounds; what depends on them follows, so that every frame it looks at
can occur. It needs no gradient: the difference of a float and an integer function is a sawtooth. It starts at the worst
frames of the pass, with some between, and its end is measured as any other frames are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, differential_evolution

from quant.dataset.filling import free_columns
from quant.dataset.moving import moved
from quant.evaluation.stress.found import SEARCHED, Found
from quant.evaluation.stress.measure import Part, Trial, measure
from quant.observation.observations import F32, Observations

POPULATION = 64
"""Frames in a generation."""
GENERATIONS = 40
NEAR = 0.05
"""How far from a worst frame the others of the first generation are: a share of the range, one standard deviation."""
FAR = 0.25
"""Share of the first generation that is anywhere."""


@dataclass(frozen=True)
class Start:
    """Where a search begins: a track's worst frames with one number of peers, the worst first; ``number`` seeds it."""

    track: str
    frames: Found
    number: int


def search(trial: Trial, start: Start) -> Part:
    """Searches, and measures the last generation of the one candidate."""
    space = _Space.of(trial, start)
    own = Trial(trial.policy, {start.track: trial.candidates[start.track]}, trial.sampling, trial.span)
    if not len(space.low):
        return measure(own, SEARCHED, start.frames.observations[:1])
    original, runner = own.original, own.runners[start.track]

    def difference(x: NDArray[np.float64], /) -> Any:
        """(D, S) -> (S,): vectorized, which the types of SciPy's stubs do not know."""
        frames = space.frames(x.T)
        return -own.deviations(original.values(frames), runner.values(frames))

    generator = np.random.default_rng((trial.sampling.seed, start.number))
    result = differential_evolution(
        difference,
        Bounds(space.low, space.high),
        init=space.first_generation(start, generator),
        maxiter=GENERATIONS,
        rng=generator,
        vectorized=True,
        updating="deferred",
        polish=False,
        tol=0,
        recombination=0.5,
    )
    return measure(own, SEARCHED, space.frames(np.asarray(result.population)))


@dataclass(frozen=True, eq=False)
class _Space:
    """The free values that a search moves.

    Attributes:
        trial: what is held against what.
        base: one frame; its mask stays, and what its older frames have beside the newest.
        columns: of the ego, free and not fixed by their bounds.
        low, high: (D,) of those columns and then of every feature of the peers present.
    """

    trial: Trial
    base: Observations
    columns: list[int]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @staticmethod
    def of(trial: Trial, start: Start) -> _Space:
        contract, base = trial.sampling.contract, start.frames.observations[:1]
        ego, peers = contract.bounds(peers=False), contract.bounds(peers=True)
        columns = [i for i in free_columns(contract) if ego[0][i] < ego[1][i]]
        low, high = (
            np.concatenate([own[columns], np.tile(theirs, int(base.counts[0]))]).astype(np.float64)
            for own, theirs in zip(ego, peers, strict=True)
        )
        return _Space(trial, base, columns, low, high)

    def values(self, frames: Observations) -> NDArray[np.float64]:
        """(S, D) of S frames with the base's number of peers, which stand in the first slots."""
        peers = frames.peers[:, : int(self.base.counts[0])].reshape(len(frames), -1)
        return np.concatenate([frames.ego[:, self.columns], peers], axis=1).astype(np.float64)

    def frames(self, values: NDArray[np.float64]) -> Observations:
        """(S, D) -> S frames."""
        rows = np.zeros(len(values), np.int64)
        base = self.base[rows]
        ego, peers = base.ego.copy(), base.peers.copy()
        width = len(self.columns)
        ego[:, self.columns] = values[:, :width]
        present = int(self.base.counts[0])
        peers[:, :present] = _f32(values[:, width:]).reshape(len(values), present, peers.shape[2])
        return moved(self.trial.sampling.contract, base, ego, peers, base.mask)

    def first_generation(self, start: Start, generator: np.random.Generator) -> NDArray[np.float64]:
        """(S, D): the worst frames, others near them, and some anywhere."""
        worst = self.values(start.frames.observations)
        chosen = worst[np.arange(POPULATION) % len(worst)]
        size = (POPULATION, len(self.low))
        near = chosen + NEAR * (self.high - self.low) * generator.standard_normal(size)
        anywhere = self.low + generator.random(size) * (self.high - self.low)
        made = np.where(generator.random((POPULATION, 1)) < FAR, anywhere, near)
        made[: len(worst)] = worst[:POPULATION]
        return np.clip(made, self.low, self.high)


def _f32(values: NDArray[np.float64]) -> F32:
    return values.astype(np.float32)
