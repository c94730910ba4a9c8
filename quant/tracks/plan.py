"""Where the steps of every tensor lie, and the policy rewritten so that they lie there.

Three rewrites cost neither operator nor weight on the device (positive factors move through linear layers, ReLU and
pooling):

- *Feature folding*: a feature's own range is stretched over all steps; its scale and shift move into the first layer.
- *Shared interface*: the head's input takes the encoder output's scale and zero point, so that pooled int8 embeddings
  are copied; the ego's features are folded to that same range.
- *Equalization* (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019):
  units before a positively homogeneous activation are scaled towards a common range, the next layer's columns take the
  inverse.

The output range of a Box policy is its action bounds: int8 saturation is the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32, Observations
from quant.policy.policy import ACTIVATIONS, Activation, Box, Dense, Policy, pool
from quant.tracks.candidate import Affine, Bits, code_limits

HOMOGENEOUS: frozenset[Activation] = frozenset({"relu", "linear"})
"""f(s x) = s f(x) for s > 0."""
FUSED: frozenset[Activation] = frozenset({"relu", "relu6", "linear"})
"""Computed by FULLY_CONNECTED itself; the others are operators of their own and need their input quantized."""
FIXED: dict[Activation, Range]
"""Output ranges that TFLite's int8 kernels demand."""

MIN_WIDTH = 1e-3
"""A feature or tensor that never moves still gets this range, so that no scale is zero."""
MIN_SHARE = 2.0**-12
"""Least width of a feature's range as a share of its largest value: x * gain is rounded to 24 bits, 8 are the step."""
END_SHARE, END_REACH = 2.0**-16, 2.0**-21
"""What an interval has beyond an end that it has to hold: of its width, and of its largest value."""
SHORT_BITS = 12
"""Significant bits of a short scale: the product of two is exact in float32."""
MIN_SCALE = 1e-2
"""An equalization factor is at least this: a unit that is nearly always zero must not blow up the next layer."""


@dataclass(frozen=True)
class Range:
    """A tensor's representable interval: 256 (or 65536) steps from ``low`` to ``high``, zero one of them."""

    low: float
    high: float
    bits: Bits = 8

    @property
    def scale(self) -> float:
        """Width of a step."""
        return (self.high - self.low) / self.steps

    @property
    def steps(self) -> int:
        """How many steps ``high`` is above ``low``."""
        return (1 << self.bits) - 1

    @property
    def zero_point(self) -> int:
        """The code of zero."""
        return round(code_limits(self.bits)[0] - self.low / self.scale)

    @staticmethod
    def symmetric(reach: float) -> Range:
        """Of int16, with zero point 0 and a short step: the narrowest that holds -reach to reach."""
        scale = short(max(reach, MIN_WIDTH) / 32767)
        return Range(-32768 * scale, 32767 * scale, 16)

    @staticmethod
    def around(low: float, high: float) -> Range:
        """The interval nearest to [low, high] in which zero is a step (Jacob et al., CVPR 2018, section 3)."""
        low, high = min(low, 0.0), max(high, 0.0)
        high = max(high, low + MIN_WIDTH)
        scale = (high - low) / 255
        zero = round(-low / scale)
        return Range(-zero * scale, (255 - zero) * scale)

    @staticmethod
    def covering(low: float, high: float) -> Range:
        """The narrowest interval that holds [low, high] whole and has zero as a step."""
        low, high = min(low, 0.0), max(high, 0.0)
        high = max(high, low + MIN_WIDTH)
        scale, zero = min((max(_step(-low, zero), _step(high, 255 - zero)), zero) for zero in range(256))
        return Range(-zero * scale, (255 - zero) * scale)

    def shortened(self) -> Range:
        """The same zero, and a step of `SHORT_BITS` that is as wide or hardly wider."""
        zero, scale = round(-self.low / self.scale), short(self.scale)
        return Range(-zero * scale, (self.steps - zero) * scale, self.bits)

    def fake_quantize(self, x: F32) -> F32:
        """Rounds to the nearest step, saturating."""
        low, scale = np.float32(self.low), np.float32(self.scale)
        steps: F32 = np.clip(np.rint((x - low) / scale), 0, self.steps)
        return np.asarray(steps * scale + low, np.float32)


def short(scale: float) -> float:
    """The least number of `SHORT_BITS` significant bits that is not below ``scale``."""
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(math.ceil(mantissa * 2**SHORT_BITS), exponent - SHORT_BITS)


def _step(reach: float, steps: int) -> float:
    """Width of a step so that ``steps`` of them cover ``reach``."""
    if reach == 0:
        return 0.0
    return reach / steps if steps else np.inf


FIXED = {"tanh": Range(-1.0, 127 / 128), "sigmoid": Range(0.0, 255 / 256)}


Ends = tuple[float, float]
"""(low, high) of what was seen."""
PEER_RANGE = Range(0.0, 1.0)
"""Range of the folded peer features."""


@dataclass(frozen=True)
class Interval:
    """(K,) float32 lower and upper ends of K features."""

    low: F32
    high: F32

    @staticmethod
    def of(x: F32, margin: float) -> Interval:
        """Smallest and largest value of each column, ``margin`` of the width added at both ends."""
        if len(x) == 0:
            return Interval(np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32))
        return Interval.holding(x.min(axis=0), x.max(axis=0)).wider(margin)

    @staticmethod
    def holding(low: F32, high: F32) -> Interval:
        """All from ``low`` to ``high``, both ends too.

        It goes beyond them by more than is rounded off on the way to a code: x * gain, gain and offset have 24 bits.
        """
        reach = np.maximum(np.abs(low), np.abs(high))
        high = np.maximum(high, low + np.maximum(reach * np.float32(MIN_SHARE), np.float32(MIN_WIDTH)))
        extra = (high - low) * np.float32(END_SHARE) + reach * np.float32(END_REACH)
        return Interval((low - extra).astype(np.float32), (high + extra).astype(np.float32))

    def wider(self, margin: float) -> Interval:
        """``margin`` of each feature's width added at both of its ends."""
        extra = np.float32(margin) * self.width
        return Interval(self.low - extra, self.high + extra)

    @property
    def width(self) -> F32:
        """(K,) high - low."""
        return self.high - self.low

    def share(self, x: F32) -> F32:
        """(N, K) features -> (N, K) where each lies between low (0) and high (1), saturating."""
        return np.asarray(np.clip((x - self.low) / self.width, 0, 1), np.float32)

    def affine(self, bits: Bits = 8, residual: int = 0) -> Affine:
        """Quantization that puts ``low`` at the lowest code and ``high`` at the highest."""
        lowest, highest = code_limits(bits)
        gain = (np.float32(highest - lowest) / self.width).astype(np.float32)
        return Affine(gain, (np.float32(lowest) - self.low * gain).astype(np.float32), bits, residual)


@dataclass(frozen=True)
class LayerRanges:
    """Ranges of one layer: ``before`` its activation where that is an operator of its own, and ``after`` it."""

    before: Range | None
    after: Range


@dataclass(frozen=True)
class Plan:
    """Everything the converter needs: folded float layers and the range of every tensor.

    Attributes:
        policy: the float policy the layers were folded from (as it was rewritten).
        peer, ego: ranges of the features.
        z: range of the head's input; the encoder's output range unless the pooling is a sum.
        encoder, head: folded layers; the encoder's input lies in ``peers``, the head's in ``z``.
        encoder_ranges, head_ranges: ranges of the layers, in order.
        peers: range of the encoder's input.
        per_tensor: whether the weights of a layer share one scale.
        peer_residual, ego_residual: see `quant.tracks.candidate.Affine`; the first layers have columns for residuals
            behind the others.
    """

    policy: Policy
    peer: Interval
    ego: Interval
    z: Range
    encoder: tuple[Dense, ...]
    head: tuple[Dense, ...]
    encoder_ranges: tuple[LayerRanges, ...]
    head_ranges: tuple[LayerRanges, ...]
    peers: Range = PEER_RANGE
    per_tensor: bool = False
    peer_residual: int = 0
    ego_residual: int = 0

    @property
    def bits(self) -> Bits:
        """Width of activations."""
        return self.z.bits

    def peer_affine(self) -> Affine:
        """Quantization of a peer's features."""
        return self.peer.affine(self.bits, self.peer_residual)

    def ego_affine(self) -> Affine:
        """Quantization of the ego's features."""
        return self.ego.affine(self.bits, self.ego_residual)

    def fold_peers(self, peers: F32) -> F32:
        """(N, F) features -> (N, F) in the range of the encoder's input, saturating."""
        return _stretched(self.peer.share(peers), self.peers)

    def fold_ego(self, ego: F32) -> F32:
        """(N, E) features -> (N, E) in the range of z, saturating."""
        return _stretched(self.ego.share(ego), self.z)

    def hold_peers(self, peers: F32) -> F32:
        """(N, F) features -> (N, F or 2 F), as the encoder's input tensor holds them."""
        if self.peer_residual:
            return _held(self.peer_affine(), peers, self.peers)
        return self.peers.fake_quantize(self.fold_peers(peers))

    def hold_head_inputs(self, z: F32, ego: F32) -> F32:
        """(N, D) pooled embeddings, (N, E) features -> (N, D + E or D + 2 E), as the head's input tensor holds them."""
        return np.concatenate([self.z.fake_quantize(z), self.hold_ego(ego)], axis=1)

    def hold_ego(self, ego: F32) -> F32:
        """(N, E) features -> (N, E or 2 E), as the head's input tensor holds them."""
        if self.ego_residual:
            return _held(self.ego_affine(), ego, self.z)
        return self.z.fake_quantize(self.fold_ego(ego))


def _stretched(share: F32, into: Range) -> F32:
    return np.asarray(share * np.float32(into.high - into.low) + np.float32(into.low))


def _held(affine: Affine, x: F32, tensor: Range) -> F32:
    """Codes of features, as what they stand for in a tensor."""
    return np.asarray((affine.quantize(x).astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale))


@dataclass(frozen=True)
class Rewriting:
    """How the policy is written before it is quantized, without changing what it computes.

    Attributes:
        exponent: of the equalization of each homogeneous unit's range; 0 leaves it, 1 makes all equal.
        split: units of each hidden ReLU layer that are in two (:mod:`quant.tracks.splitting`); the others are made
            equal.
        twins: units of each tanh layer of the head that are.
    """

    exponent: float = 0.0
    split: int = 0
    twins: int = 0

    def changes(self, policy: Policy) -> bool:
        """Whether there is something to split, where that is asked for."""
        rectified = any(layer.activation == "relu" for layer in (*policy.encoder, *policy.head[:-1]))
        bent = any(layer.activation == "tanh" for layer in policy.head[:-1])
        return not (self.split or self.twins) or bool(self.split and rectified) or bool(self.twins and bent)

    def __str__(self) -> str:
        if not self.split:
            return f"equalized by {self.exponent}"
        return f"{self.split} ReLU and {self.twins} tanh units of a layer in two"


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A policy that was rewritten.

    Attributes:
        policy: the same function, as far as the frames go that it was rewritten for.
        halves: of each layer, the encoder's first, which units have a second half that goes on where they saturate; it
            stands behind all first halves, in this order. None where the layer is as it was but for positive factors.
    """

    policy: Policy
    halves: tuple[NDArray[np.int64] | None, ...]

    @staticmethod
    def scaled(policy: Policy) -> Rewritten:
        """One with other factors alone."""
        return Rewritten(policy, (None,) * (len(policy.encoder) + len(policy.head)))


@dataclass(frozen=True)
class Choice:
    """What is left to choose, tensor by tensor; found by `quant.tracks.ptq.search`.

    Attributes:
        margin: share of a feature's width added at both ends.
        rewriting: of the policy.
        encoder, head: share of each layer's calibrated range (before a separate activation, else after) that is kept.
        peer_residual, ego_residual: by which residuals of features are finer; 0: there are none.
    """

    margin: float
    rewriting: Rewriting
    encoder: tuple[float, ...]
    head: tuple[float, ...]
    peer_residual: int = 0
    ego_residual: int = 0


def equalize(policy: Policy, observations: Observations, exponent: float) -> Policy:
    """The same function with the ranges of homogeneous units drawn together by ``exponent``."""
    if exponent == 0 or not observations.mask.any():
        return policy
    encoder, head = list(policy.encoder), list(policy.head)
    x = observations.peers[observations.mask]
    for i, layer in enumerate(policy.encoder):
        x = layer(x)
        if layer.activation not in HOMOGENEOUS:
            continue
        factor = _factor(x, exponent)
        encoder[i] = _scale_units(encoder[i], factor)
        if i + 1 < len(encoder):
            encoder[i + 1] = _scale_columns(encoder[i + 1], factor)
        else:
            head[0] = _scale_columns(head[0], np.concatenate([factor, np.ones(policy.ego_size, np.float32)]))
    x = policy.forward(observations).head_inputs
    for i, layer in enumerate(policy.head[:-1]):
        x = layer(x)
        if layer.activation in HOMOGENEOUS:
            factor = _factor(x, exponent)
            head[i] = _scale_units(head[i], factor)
            head[i + 1] = _scale_columns(head[i + 1], factor)
    return replace(policy, encoder=tuple(encoder), head=tuple(head))


def _factor(x: F32, exponent: float) -> F32:
    largest = np.abs(x).max(axis=0)
    share = np.maximum(largest / max(float(largest.max()), MIN_WIDTH), MIN_SCALE)
    return np.asarray(share**exponent, np.float32)


def _scale_units(layer: Dense, factor: F32) -> Dense:
    return replace(layer, weight=layer.weight / factor[:, None], bias=layer.bias / factor)


def _scale_columns(layer: Dense, factor: F32) -> Dense:
    return replace(layer, weight=layer.weight * factor)


@dataclass(frozen=True)
class Calibration:
    """What the policy's tensors look like over the calibration frames.

    Attributes:
        policy: as rewritten, which they were measured on.
        peer, ego: what the features' ranges have to hold.
        encoder, head: (before activation, after activation) of each layer as (low, high).
        z: (low, high) of the pooled embedding.
    """

    policy: Policy
    peer: Interval
    ego: Interval
    encoder: tuple[tuple[Ends, Ends], ...]
    head: tuple[tuple[Ends, Ends], ...]
    z: Ends


def calibrate(
    policy: Policy, observations: Observations, features: tuple[Interval, Interval] | None = None
) -> Calibration:
    """Smallest and largest value of every tensor.

    Args:
        policy: in float.
        observations: the frames.
        features: what the peers' and the ego's ranges have to hold, where that is more than the frames do.
    """
    peer, ego = features or (Interval.of(observations.peers[observations.mask], 0), Interval.of(observations.ego, 0))
    encoder = tuple(_extremes(policy.encoder, observations.peers[observations.mask]))
    forward = policy.forward(observations)
    z = forward.head_inputs[:, : policy.embedding_size]
    head = tuple(_extremes(policy.head, forward.head_inputs))
    return Calibration(policy, peer, ego, encoder, head, (float(z.min()), float(z.max())))


def _extremes(layers: tuple[Dense, ...], x: F32) -> Iterator[tuple[Ends, Ends]]:
    for layer in layers:
        before = x @ layer.weight.T + layer.bias if len(x) else np.zeros((1, layer.outputs), np.float32)
        after = ACTIVATIONS[layer.activation](before)
        yield (float(before.min()), float(before.max())), (float(after.min()), float(after.max()))
        x = after if len(x) else x


def make_plan(
    calibration: Calibration,
    choice: Choice,
    features: tuple[Interval, Interval] | None = None,
    *,
    per_tensor: bool = False,
) -> Plan:
    """Folded layers, and ranges for every tensor, from what calibration saw and what was chosen.

    Args:
        calibration: extremes of every tensor.
        choice: what was chosen.
        features: the peers' and the ego's ranges, where they are other than the choice's margin makes them.
        per_tensor: whether the weights of a layer share one scale; then activations have short ones.
    """
    policy = calibration.policy
    encoder_ranges = _shortened(
        policy.encoder, _layer_ranges(policy.encoder, calibration.encoder, choice.encoder), per_tensor
    )
    head_ranges = _shortened(policy.head, _layer_ranges(policy.head, calibration.head, choice.head), per_tensor)
    if isinstance(policy.action_space, Box):
        head_ranges[-1] = LayerRanges(None, _action_range(policy.action_space))
    z = Range.around(*calibration.z) if policy.pooling == "sum" else encoder_ranges[-1].after
    if (per_tensor or policy.head[0].outputs == 1) and z not in FIXED.values():
        z = z.shortened()
        encoder_ranges[-1] = encoder_ranges[-1] if policy.pooling == "sum" else replace(encoder_ranges[-1], after=z)
    peer, ego = features or (calibration.peer.wider(choice.margin), calibration.ego.wider(choice.margin))
    peers = PEER_RANGE.shortened() if per_tensor else PEER_RANGE
    encoder = (fold_inputs(policy.encoder[0], 0, peer, peers, choice.peer_residual), *policy.encoder[1:])
    head = (fold_inputs(policy.head[0], policy.embedding_size, ego, z, choice.ego_residual), *policy.head[1:])
    ranges = tuple(encoder_ranges), tuple(head_ranges)
    residuals = choice.peer_residual, choice.ego_residual
    return Plan(policy, peer, ego, z, encoder, head, *ranges, peers, per_tensor, *residuals)


def fold_inputs(layer: Dense, first: int, features: Interval, folded: Range, residual: int = 0) -> Dense:
    """The layer for inputs whose columns from ``first`` on are features folded from their own range to ``folded``.

    With a ``residual`` it gets a column more for each feature's residual; its code 0 is ``zero_point`` steps off zero.
    """
    # feature = low + (folded - folded.low) * stretch
    stretch = features.width / np.float32(folded.high - folded.low)
    offset = features.low - np.float32(folded.low) * stretch
    untouched, own = layer.weight[:, :first], layer.weight[:, first:]
    columns, bias = [untouched, own * stretch], layer.bias + own @ offset
    if residual:
        fine = own * (stretch / np.float32(residual))
        columns, bias = [*columns, fine], bias + fine.sum(axis=1) * np.float32(folded.zero_point * folded.scale)
    weight = np.concatenate(columns, axis=1).astype(np.float32)
    return replace(layer, weight=weight, bias=bias.astype(np.float32))


def _layer_ranges(
    layers: tuple[Dense, ...],
    extremes: tuple[tuple[Ends, Ends], ...],
    kept: tuple[float, ...],
) -> list[LayerRanges]:
    ranges = []
    for layer, (before, after), share in zip(layers, extremes, kept, strict=True):
        if layer.activation in FUSED:
            ranges.append(LayerRanges(None, Range.around(after[0] * share, after[1] * share)))
        else:
            own = FIXED.get(layer.activation) or Range.around(*after)
            ranges.append(LayerRanges(Range.around(before[0] * share, before[1] * share), own))
    return ranges


def _shortened(layers: tuple[Dense, ...], ranges: list[LayerRanges], per_tensor: bool) -> list[LayerRanges]:
    """Short scales before layers whose weights share one scale: TFLM multiplies the two in float32 or in float64."""
    following = [*(per_tensor or layer.outputs == 1 for layer in layers[1:]), per_tensor]
    return [
        replace(own, after=own.after.shortened()) if single and layer.activation not in FIXED else own
        for layer, own, single in zip(layers, ranges, following, strict=True)
    ]


def _action_range(space: Box) -> Range:
    """One tensor holds all components, so the range spans all bounds; what is beyond one's own is clipped after."""
    return Range.covering(min(space.low), max(space.high))


def needs_short_scale(layer: Dense, inputs: Range, per_tensor: bool = False) -> bool:
    """Whether a layer's weights share one scale whose product with its input's would be rounded in float32."""
    return per_tensor or (layer.outputs == 1 and inputs not in FIXED.values())


def weight_scale(layer: Dense, inputs: Range, per_tensor: bool = False) -> F32:
    """(M, 1), or (1, 1) of all, width of a step of the weights, from -127 to 127 of each output's own."""
    axis = None if per_tensor else 1
    scale: F32 = np.maximum(np.abs(layer.weight).max(axis=axis, keepdims=True), np.float32(1e-12)) / np.float32(127)
    short_one = needs_short_scale(layer, inputs, per_tensor)
    return np.array([[short(float(scale[0, 0]))]], np.float32) if short_one else scale


def fake_quantize_weight(layer: Dense, inputs: Range, per_tensor: bool = False) -> F32:
    """(M, K) weights in symmetric int8 steps of each output channel's own, as the converter rounds them."""
    scale = weight_scale(layer, inputs, per_tensor)
    return np.asarray(np.rint(layer.weight / scale) * scale, np.float32)


def simulate(plan: Plan, observations: Observations, *, round_weights: bool = True) -> F32:
    """(N, A) head outputs with every rounding of the plan in float arithmetic: for search, never for a verdict."""
    z = simulate_encoder(plan, observations, round_weights=round_weights)
    return simulate_head(plan, z, observations.ego, round_weights=round_weights)


def simulate_encoder(plan: Plan, observations: Observations, *, round_weights: bool = True) -> F32:
    """(N, D) pooled embeddings, before they are rounded to the head's input."""
    peers = plan.hold_peers(observations.peers[observations.mask])
    embeddings = np.zeros((*observations.mask.shape, plan.policy.embedding_size), np.float32)
    rounded = plan.per_tensor if round_weights else None
    embeddings[observations.mask] = _simulate_layers(plan.encoder, plan.encoder_ranges, plan.peers, peers, rounded)
    return pool(embeddings, observations.mask, plan.policy.pooling)


def simulate_head(plan: Plan, z: F32, ego: F32, *, round_weights: bool = True) -> F32:
    """(N, D) pooled embeddings and (N, E) features of the ego -> (N, A) head outputs."""
    rounded = plan.per_tensor if round_weights else None
    return _simulate_layers(plan.head, plan.head_ranges, plan.z, plan.hold_head_inputs(z, ego), rounded)


def _simulate_layers(
    layers: tuple[Dense, ...], ranges: tuple[LayerRanges, ...], inputs: Range, x: F32, per_tensor: bool | None
) -> F32:
    """Weights are rounded as ``per_tensor`` says, or not at all where it is None."""
    for layer, own in zip(layers, ranges, strict=True):
        weight = layer.weight if per_tensor is None else fake_quantize_weight(layer, inputs, per_tensor)
        x = x @ weight.T + layer.bias
        inputs = own.after
        if own.before is not None:
            x = own.before.fake_quantize(x)
        x = own.after.fake_quantize(ACTIVATIONS[layer.activation](x))
    return x


def correct_biases(plan: Plan, observations: Observations, weights: F32) -> Plan:
    """The plan with biases that take away the mean error of rounded weights, layer after layer.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2; the
    means are measured, on what the rounded layers before give.

    Args:
        plan: whose weights will be rounded to the nearest step.
        observations: N frames.
        weights: (N,) of them.
    """
    policy, mask = plan.policy, observations.mask
    peers = observations.peers[mask]
    of_peers = np.broadcast_to(weights[:, None], mask.shape)[mask]
    encoder, embedded = _corrected(
        plan.encoder,
        policy.encoder,
        plan.encoder_ranges,
        plan.peers,
        plan.per_tensor,
        (plan.hold_peers(peers), peers, of_peers),
    )
    embeddings = np.zeros((*mask.shape, policy.embedding_size), np.float32)
    embeddings[mask] = embedded
    z = pool(embeddings, mask, policy.pooling)
    exact = policy.forward(observations).head_inputs
    held = plan.hold_head_inputs(z, observations.ego)
    head, _ = _corrected(plan.head, policy.head, plan.head_ranges, plan.z, plan.per_tensor, (held, exact, weights))
    return replace(plan, encoder=encoder, head=head)


def _corrected(
    layers: tuple[Dense, ...],
    exact: tuple[Dense, ...],
    ranges: tuple[LayerRanges, ...],
    inputs: Range,
    per_tensor: bool,
    rows: tuple[F32, F32, F32],
) -> tuple[tuple[Dense, ...], F32]:
    """Rows are what the rounded layers get, what those in float get, and the weight of each."""
    x, wanted, weights = rows
    share = weights.astype(np.float64) / max(float(weights.sum(dtype=np.float64)), 1e-12)
    corrected = []
    for layer, own, span in zip(layers, exact, ranges, strict=True):
        weight = fake_quantize_weight(layer, inputs, per_tensor)
        target = wanted @ own.weight.T + own.bias
        bias = (share @ target - weight @ (share @ x)).astype(np.float32) if len(x) else layer.bias
        corrected.append(replace(layer, bias=bias))
        x = x @ weight.T + bias
        if span.before is not None:
            x = span.before.fake_quantize(x)
        activation = ACTIVATIONS[own.activation]
        x, wanted, inputs = span.after.fake_quantize(activation(x)), activation(target), span.after
    return tuple(corrected), x
