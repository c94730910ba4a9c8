"""One feature swept through the worst frame that a stress test found: what float and every candidate make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.dataset.filling import free_columns
from quant.dataset.moving import moved
from quant.evaluation.evaluation import FLOAT
from quant.evaluation.stress.results import Stress
from quant.observation.contract import Column, Contract
from quant.observation.coverage import named
from quant.observation.observations import Observations
from quant.policy.policy import Policy
from quant.runners import FloatRunner, Int8Runner
from quant.runners.runner import Runner
from quant.tracks.candidate import Candidate

COARSE, FINE = 33, 97
"""Places over a feature's range: to choose the feature, and to draw it."""


@dataclass(frozen=True)
class Feature:
    """A column of the ego, or of the peer in a slot.

    Attributes:
        index: of the column.
        slot: of the peer; None for the ego.
    """

    index: int
    slot: int | None = None

    def column(self, contract: Contract) -> Column:
        """What it is."""
        return (contract.ego if self.slot is None else contract.peers)[self.index]

    def value(self, frame: Observations) -> float:
        """In the first frame."""
        return float((frame.ego[0] if self.slot is None else frame.peers[0, self.slot])[self.index])


@dataclass(frozen=True, eq=False)
class Sweep:
    """A candidate's worst frame with one feature of it moved over all it may be, and what depends on it moved along.

    Attributes:
        track: whose worst frame it is.
        feature: which is moved.
        name: of the feature, and whose it is.
        column: what the contract says of it.
        at: its value in the frame.
        values: (K,) over its range.
        component: of the action, or the action whose logit, is shown: the one that differs most.
        outputs: (K,) by track, ``float`` among them.
        difference: the largest of the candidate from float along the sweep, as a share of the range.
    """

    track: str
    feature: Feature
    name: str
    column: Column
    at: float
    values: NDArray[np.float64]
    component: int
    outputs: Mapping[str, NDArray[np.float64]]
    difference: float


def sweep(stress: Stress, policy: Policy, candidates: Mapping[str, Candidate], track: str) -> Sweep | None:
    """Sweeps the feature along which the candidate's difference from float changes most: where it begins can be seen.

    All sweeps go through the same frame, so that the largest difference alone does not tell them apart. A feature that
    is cut off in the frame comes before all others: it is the likeliest cause.

    Args:
        stress: what was found.
        policy: in float.
        candidates: by track.
        track: whose worst frame is taken.

    Returns:
        None where no frame was kept, or nothing in it can be moved.
    """
    kept, contract = stress.worst[track], stress.contract
    if not len(kept):
        return None
    base = kept.observations[:1]
    features = [one for one in _features(contract, base) if _width(one.column(contract)) > 0]
    if not features:
        return None
    original: Runner = FloatRunner(policy)
    candidate = Int8Runner(candidates[track])
    frames = Observations.concatenate(
        [frames_of(contract, base, one, _places(contract, one, COARSE)) for one in features]
    )
    apart = _apart(stress, original, candidate, frames).max(axis=1).reshape(len(features), COARSE)
    cut = [_is_cut(candidates[track], one, one.value(base)) for one in features]
    chosen = features[int(np.lexsort((apart.max(axis=1) - apart.min(axis=1), cut))[-1])]
    at = chosen.value(base)
    values = np.unique(np.append(_places(contract, chosen, FINE), at))
    frames = frames_of(contract, base, chosen, values)
    apart = _apart(stress, original, candidate, frames)
    component = int(apart.max(axis=0).argmax())
    runners: dict[str, Runner] = {FLOAT: original, **{name: Int8Runner(one) for name, one in candidates.items()}}
    outputs = {name: runner.values(frames)[:, component].astype(np.float64) for name, runner in runners.items()}
    column = chosen.column(contract)
    whose = "ego" if chosen.slot is None else f"peer {chosen.slot + 1}"
    return Sweep(track, chosen, named(whose, column.name), column, at, values, component, outputs, float(apart.max()))


def _features(contract: Contract, base: Observations) -> Sequence[Feature]:
    own = [Feature(index) for index in free_columns(contract)]
    slots = np.flatnonzero(base.mask[0]).tolist()
    return [*own, *(Feature(index, slot) for slot in slots for index in range(len(contract.peers)))]


def _is_cut(candidate: Candidate, feature: Feature, value: float) -> bool:
    low, high = (candidate.ego_input if feature.slot is None else candidate.peer_input).ends
    return not low[feature.index] <= np.float32(value) <= high[feature.index]


def _width(column: Column) -> float:
    return 0.0 if column.low is None or column.high is None else column.high - column.low


def _places(contract: Contract, feature: Feature, count: int) -> NDArray[np.float64]:
    column = feature.column(contract)
    assert column.low is not None and column.high is not None
    return np.linspace(column.low, column.high, count)


def frames_of(contract: Contract, base: Observations, feature: Feature, values: NDArray[np.float64]) -> Observations:
    """The first frame once for each value of the feature, with what depends on it moved along."""
    rows = base[np.zeros(len(values), np.int64)]
    ego, peers = rows.ego.copy(), rows.peers.copy()
    if feature.slot is None:
        ego[:, feature.index] = values
    else:
        peers[:, feature.slot, feature.index] = values
    return moved(contract, rows, ego, peers, rows.mask)


def _apart(stress: Stress, original: Runner, candidate: Runner, frames: Observations) -> NDArray[np.float64]:
    """(N, A) differences, as shares of the range."""
    difference = candidate.values(frames).astype(np.float64) - original.values(frames)
    return np.asarray(np.abs(difference) / np.array(stress.span))
