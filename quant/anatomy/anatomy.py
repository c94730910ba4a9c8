"""The figures of an anatomy: what each rounding of a candidate contributes to the error of its decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from quant.anatomy.simulation import Kind
from quant.evaluation.evaluation import rounded
from quant.observation.contract import Column as Described
from quant.tracks.candidate import Bits, Part

SCHEMA_VERSION = 1
End = Literal["low", "high"]
Frames = Literal["held-out", "stress"]
"""Frames of the dataset that no track learned from, or those that a stress test kept."""
DOUBLE_ROUNDING = "double rounding"
"""Where a frame parts that the simulation, which rounds once, decides as the float policy does."""


@dataclass(frozen=True)
class Effect:
    """Decisions held against the float policy's, over n frames.

    Attributes:
        n: frames.
        cost: Box: mean squared error of the clipped action. Discrete: mean divergence of the softmax, in nats.
        mae, max_error: as in the evaluation: of the clipped action, or of the logits.
        disagreement: share of frames with another action, as in the evaluation.
        bias: (A,) mean error of the clipped action, or of each action's softmax probability.
        spread: root of the mean square of what is left of that error without the bias.
    """

    n: int
    cost: float
    mae: float
    max_error: float
    disagreement: float
    bias: tuple[float, ...]
    spread: float

    @property
    def leaning(self) -> float:
        """Share of the squared error that is bias, 0 to 1."""
        square = float(np.mean(np.square(self.bias)))
        whole = square + self.spread**2
        return square / whole if whole else 0.0


@dataclass(frozen=True)
class Effects:
    """An effect overall (all frames but the augmented ones, where there are others), by peer count and by origin.

    Attributes:
        by_peers: one for each count 0..P; None where no frame has that many.
    """

    overall: Effect
    by_peers: tuple[Effect | None, ...]
    by_origin: dict[str, Effect]


@dataclass(frozen=True)
class Column:
    """One feature of an input.

    Attributes:
        name: the contract's, or its number.
        cost: with this feature alone rounded.
        cut_off: share of its values beyond the range.
        low, high: the range.
        below, above: share of the frames with a value beyond either end; of a peer's, with any peer's.
        cut_cost: with this feature alone cut off, not rounded.
        what: what the contract says of it; None where there is no contract.
        short: ends, ``low`` or ``high``, at which the range does not reach what the contract lets it be.
    """

    name: str
    cost: float
    cut_off: float
    low: float
    high: float
    below: float = 0.0
    above: float = 0.0
    cut_cost: float = 0.0
    what: Described | None = None
    short: tuple[End, ...] = ()


@dataclass(frozen=True)
class TensorFacts:
    """A quantized tensor on all held-out frames, augmented ones included.

    Attributes:
        low, high: what the ends of its codes stand for; of an input the narrowest and the widest stand in ``columns``.
        at_low, at_high: share of codes at the ends; for a ReLU of int8 the lowest is an ordinary zero.
        cut_off: share of values more than a step beyond the range (of a Box's output: that the action's bounds keep).
        beyond: how far the farthest of them lies beyond it, as a share of the range.
        cut_off_cost: cost with values cut off alone, not rounded.
        codes: (256,), of int16 (65536,): how often each code from the lowest on occurs; with residuals, finer ones.
        columns: of an input, its features.
    """

    low: float
    high: float
    at_low: float
    at_high: float
    cut_off: float
    beyond: float
    cut_off_cost: float
    codes: tuple[int, ...]
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class WeightFacts:
    """A layer's weights against the float policy's, folded alike.

    Attributes:
        size: how many.
        levels: distinct codes among them, of 255.
        per_channel: whether every output has a scale of its own.
        unevenness: where all outputs share a scale, the largest weight over the median of the outputs' largest; else 1.
        moved_rms, moved_max: distance from the exact weights in steps; rounding alone gives .29 and .5.
        bias_moved: largest distance of a bias from the exact one, in steps of the layer's output.
    """

    size: int
    levels: int
    per_channel: bool
    unevenness: float
    moved_rms: float
    moved_max: float
    bias_moved: float


@dataclass(frozen=True)
class Source:
    """One rounding and what it does.

    Attributes:
        name: as tables show it, ``head 0 weights``.
        part: the sub-model; the embedding is the encoder's, z and the ego's input the head's.
        kind: input, weights, activations (of a hidden tensor), output (of a sub-model).
        layer: number within the sub-model; None for inputs and z.
        share: of the summed costs of all sources alone.
        alone: everything else exact.
        exact: everything else rounded.
        submodel_error: alone, mean absolute error of its own sub-model's output, in steps of that output.
        tensor: of an input or a tensor after a layer.
        weights: of weights.
    """

    name: str
    part: Part
    kind: Kind
    layer: int | None
    share: float
    alone: Effects
    exact: Effects
    submodel_error: float
    tensor: TensorFacts | None = None
    weights: WeightFacts | None = None


@dataclass(frozen=True)
class Group:
    """Several sources together: a sub-model, all inputs, all weights, all tensors after layers.

    Attributes:
        alone: everything else exact.
        exact: everything else rounded.
    """

    name: str
    alone: Effects
    exact: Effects


@dataclass(frozen=True)
class WorstFrame:
    """A frame on which candidate and float policy differ most.

    Attributes:
        row: of the dataset.
        origin: recorded, rollout or augmented.
        peers: how many are present.
        ego: (E,) features, in the order of the columns of the ego's input.
        peer_features: (peers, F).
        reference, candidate: (A,) the float policy's and the INT8 values: clipped action or logits.
        error: largest absolute difference of the two.
        parts_at: the source, added to those computed before it, from which on the decision stays apart (Discrete:
            another action; else half of the error); `DOUBLE_ROUNDING` where the simulation does not part.
        largest: the source with the largest error alone in this frame.
        cut_off: sources that cut off a value in this frame.
    """

    row: int
    origin: str
    peers: int
    ego: tuple[float, ...]
    peer_features: tuple[tuple[float, ...], ...]
    reference: tuple[float, ...]
    candidate: tuple[float, ...]
    error: float
    parts_at: str
    largest: str
    cut_off: tuple[str, ...]


@dataclass(frozen=True)
class Anatomy:
    """The error of one candidate taken apart.

    Attributes:
        track: of the candidate.
        space: ``box`` or ``discrete``.
        measured: the INT8 decisions, TFLite-Micro's arithmetic; its figures are those of the evaluation.
        simulated: every rounding on, rounded once, with exact multipliers.
        unlike: share of frames in which a head output of the two is not the same code.
        folding_error: largest absolute difference of the network without rounding from the float policy.
        sources: in the order of computation.
        groups: of them.
        worst: frames, the largest error first.
        bits: width of the candidate's activations.
        frames: what it was looked at on.
    """

    track: str
    space: Literal["box", "discrete"]
    measured: Effects
    simulated: Effects
    unlike: float
    folding_error: float
    sources: tuple[Source, ...]
    groups: tuple[Group, ...]
    worst: tuple[WorstFrame, ...]
    bits: Bits = 8
    frames: Frames = "held-out"

    def source(self, name: str) -> Source:
        """By name."""
        return next(source for source in self.sources if source.name == name)

    def group(self, name: str) -> Group:
        """By name."""
        return next(group for group in self.groups if group.name == name)

    def change(self, without: Effects) -> float:
        """By how much the cost changes when something is made exact, as a share of the simulated cost."""
        whole = self.simulated.overall.cost
        return without.overall.cost / whole - 1 if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """The document: all of the above by name, numbers to six significant digits; codes in at most 256 counts."""
        document: dict[str, Any] = _plain({"schema_version": SCHEMA_VERSION, **asdict(self)})
        for source in document["sources"]:
            if source["tensor"] is not None:
                source["tensor"]["codes"] = _counts(source["tensor"]["codes"])
        return document


def _counts(codes: list[int]) -> list[int]:
    """At most 256 counts, of neighbours together."""
    part = np.arange(len(codes)) * 256 // max(len(codes), 256)
    return [int(count) for count in np.bincount(part, weights=codes)]


_PLAIN: Mapping[type, Callable[[Any], Any]] = {
    dict: lambda value: {key: _plain(one) for key, one in value.items()},
    list: lambda value: [_plain(one) for one in value],
    tuple: lambda value: [_plain(one) for one in value],
    float: rounded,
}


def _plain(value: Any) -> Any:
    return _PLAIN.get(type(value), lambda one: one)(value)
