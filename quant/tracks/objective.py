"""What every track makes small: the error of decisions on frames that were seen, with a guard over the declared range.

Recorded, driven and augmented frames count as what they are. Filled frames (:mod:`quant.dataset.filling`) lie anywhere
between the bounds of the observation's contract, most of them where no vehicle goes: they count little, as long as no
decision is turned round and the worst ones do not grow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.dataset import Dataset, Split, spread
from quant.dataset.storage import Made
from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Discrete, Policy
from quant.policy.sides import sides_of
from quant.tracks.plan import Interval

MAX_SEEN, MAX_FILLED = 5000, 2000
"""Frames that a track is made on, spread evenly over calibration and training frames of either kind."""
FILLED_WEIGHT = 0.05
"""Of the mean error on filled frames."""
WORST, WORST_WEIGHT = 0.002, 0.01
"""The share of the filled frames that err most; the weight of their mean error, as far as that is above `HARMLESS`."""
HARMLESS = 0.02
"""As the tolerance within which decisions agree."""
TURNED_WEIGHT = 5.0
"""Of the share of filled frames with a missed or a false action."""


@dataclass(frozen=True)
class Frames:
    """What a track is made on; held-out frames are never among it.

    Attributes:
        seen: recorded, driven and augmented frames.
        filled: frames that fill the declared range.
        peer, ego: what the features' ranges have to hold: all that is declared, and all that the frames have.
    """

    seen: Observations
    filled: Observations
    peer: Interval
    ego: Interval

    @staticmethod
    def of(dataset: Dataset) -> Frames:
        """Calibration and training frames of a dataset, thinned evenly."""
        seen = _thinned(dataset, MAX_SEEN, Made.SEEN, Made.AUGMENTED)
        filled = _thinned(dataset, MAX_FILLED, Made.FILLED)
        every = dataset.observations(_rows(dataset, *Made))
        return Frames(
            seen,
            filled,
            _holding(dataset.contract.bounds(peers=True), every.peers[every.mask]),
            _holding(dataset.contract.bounds(peers=False), every.ego),
        )

    @staticmethod
    def only(seen: Observations) -> Frames:
        """Frames of which nothing is declared."""
        return Frames(seen, seen[:0], Interval.of(seen.peers[seen.mask], 0), Interval.of(seen.ego, 0))

    def recorded(self) -> Frames:
        """The same without what was declared: what a track would be made on if the range were as far as was seen."""
        return Frames.only(self.seen)

    @property
    def all(self) -> Observations:
        """Those that were seen, and then the filled ones."""
        return Observations.concatenate([self.seen, self.filled])

    @property
    def features(self) -> tuple[Interval, Interval]:
        """What the peers' and the ego's ranges have to hold."""
        return self.peer, self.ego

    @property
    def described(self) -> str:
        """How many there are."""
        return f"calibration and training frames: {len(self.seen)} seen, {len(self.filled)} filled"

    @property
    def weights(self) -> F32:
        """(N,) of every frame in a mean over all of them."""
        filled = np.float32(FILLED_WEIGHT * len(self.seen) / max(len(self.filled), 1))
        ones = np.ones(len(self.seen), np.float32)
        return np.concatenate([ones, np.full(len(self.filled), filled, np.float32)])


def _rows(dataset: Dataset, *made: Made) -> NDArray[np.int64]:
    rows = [dataset.rows(split, *made) for split in (Split.CALIBRATION, Split.TRAINING)]
    return np.sort(np.concatenate(rows))


def _thinned(dataset: Dataset, most: int, *made: Made) -> Observations:
    rows = _rows(dataset, *made)
    return dataset.observations(rows[spread(len(rows), most)])


def _holding(bounds: tuple[F32, F32], x: F32) -> Interval:
    least, most = (x.min(axis=0), x.max(axis=0)) if len(x) else (np.zeros(x.shape[1], np.float32),) * 2
    low, high = (np.where(np.isfinite(end), end, own) for end, own in zip(bounds, (least, most), strict=True))
    return Interval.holding(np.minimum(low, least), np.maximum(high, most))


@dataclass(frozen=True)
class Objective:
    """The error of decisions on frames.

    Attributes:
        space: what values mean.
        reference: (N, A) of the float policy, on `Frames.all`.
        seen: how many of them were seen.
    """

    space: ActionSpace
    reference: F32
    seen: int

    @staticmethod
    def of(policy: Policy, frames: Frames) -> Objective:
        """Of a policy on these frames."""
        return Objective(policy.action_space, policy.forward(frames.all).values, len(frames.seen))

    def __call__(self, values: F32) -> float:
        """What is made small, of (N, A) values on `Frames.all`."""
        error = self.on_seen(values)
        if self.seen == len(self.reference):
            return error
        reference, own = self.reference[self.seen :], values[self.seen :]
        each = decision_errors(self.space, reference, own)
        worst = np.sort(each)[-max(round(WORST * len(each)), 1) :]
        return (
            error
            + FILLED_WEIGHT * float(each.mean())
            + WORST_WEIGHT * max(float(worst.mean()) - HARMLESS, 0.0)
            + TURNED_WEIGHT * float(turned(self.space, reference, own).mean())
        )

    def on_seen(self, values: F32) -> float:
        """The mean error on frames that were seen, of (N, A) values on `Frames.all`."""
        return decision_error(self.space, self.reference[: self.seen], values[: self.seen])


def decision_error(space: ActionSpace, reference: F32, values: F32) -> float:
    """The mean of `decision_errors`."""
    return float(np.mean(decision_errors(space, reference, values)))


def decision_errors(space: ActionSpace, reference: F32, values: F32) -> F32:
    """(N,) how far decisions are from the float policy's, of (N, A) values of both.

    Box: mean absolute error of the clipped action. Discrete: Kullback-Leibler divergence of the softmax of the logits
    from the float one, so that the argmax is kept first where the policy itself is sure, and ties are kept ties.
    """
    if isinstance(space, Discrete):
        log_p, log_q = _log_softmax(reference), _log_softmax(values)
        return np.asarray(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))
    return np.asarray(np.abs(space.clip(values) - space.clip(reference)).mean(axis=1))


def turned(space: ActionSpace, reference: F32, values: F32) -> NDArray[np.bool_]:
    """(N,) where one of the two acts and the other rests (:mod:`quant.policy.sides`)."""
    missed, false = sides_of(space, reference).apart(sides_of(space, values))
    return np.asarray((missed | false).any(axis=1))


def _log_softmax(logits: F32) -> F32:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)
