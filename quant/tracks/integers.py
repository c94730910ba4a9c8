"""A sub-model with every integer chosen: int8 weights, biases, and a scale for each output or for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.policy.policy import ACTIVATIONS, Activation, Dense
from quant.tracks.candidate import Bits, Int8
from quant.tracks.plan import LayerRanges, Range, needs_short_scale, short, weight_scale

MAX_BIAS: dict[Bits, int] = {8: 2**30, 16: 2**45}
"""A bias in its steps is at most this, so that it fits its accumulator with room for the products."""


@dataclass(frozen=True)
class IntegerLayer:
    """y = activation((q_x - zero) W^T * step + bias), as a device holds it.

    Attributes:
        source: range of the input.
        weight: (M, K) int8, -127 to 127.
        scale: (M,) float32, width of a step of each output's weights; (1,) of all.
        bias: (M,) int32, or int64 with int16 activations, in steps of the input's scale times ``scale``.
        activation: applied elementwise.
        ranges: of the output.
    """

    source: Range
    weight: Int8
    scale: F32
    bias: NDArray[np.int32 | np.int64]
    activation: Activation
    ranges: LayerRanges

    @staticmethod
    def of(
        steps: NDArray[np.float64], scale: F32, bias: NDArray[np.float64], layer: Dense, source: Range, own: LayerRanges
    ) -> IntegerLayer:
        """The layer of chosen weights, (M, K) in steps of ``scale`` (M,) or (1,), and float biases (M,)."""
        limit = MAX_BIAS[source.bits]
        integers = np.clip(np.rint(bias / bias_scale(source, scale)), -limit, limit)
        kind = np.int32 if source.bits == 8 else np.int64
        return IntegerLayer(source, steps.astype(np.int8), scale, integers.astype(kind), layer.activation, own)

    @staticmethod
    def nearest(layer: Dense, source: Range, own: LayerRanges, per_tensor: bool = False) -> IntegerLayer:
        """Every weight rounded to the nearest step, as the converter does."""
        scale = layer_scale(layer, source, per_tensor)
        steps = np.rint(layer.weight / scale[:, None]).astype(np.float64)
        return IntegerLayer.of(steps, scale, layer.bias.astype(np.float64), layer, source, own)

    def __call__(self, x: F32) -> F32:
        """(N, K) float32 -> (N, M) float32, every interface rounded; the sums in float32, not in integers."""
        weight = self.weight * self.scale[:, None]
        x = x @ weight.T + (self.bias * bias_scale(self.source, self.scale)).astype(np.float32)
        if self.ranges.before is not None:
            x = self.ranges.before.fake_quantize(x)
        return self.ranges.after.fake_quantize(ACTIVATIONS[self.activation](x))


def bias_scale(source: Range, scale: F32) -> NDArray[np.float64]:
    """(M,) width of a step of the biases."""
    return np.float64(tensor_scale(source)) * scale.astype(np.float64)


def tensor_scale(own: Range) -> np.float32:
    """Width of a step as the file holds it; of int8 from the ends in float32, as the converter takes them."""
    if own.bits == 16:
        return np.float32(own.scale)
    return np.float32((float(np.float32(own.high)) - float(np.float32(own.low))) / 255)


def layer_scale(layer: Dense, source: Range, per_tensor: bool = False) -> F32:
    """(M,) or (1,) width of a step of the weights: the plan's; wider where they are next to nothing to the bias."""
    scale = weight_scale(layer, source, per_tensor)[:, 0]
    least = 2 * np.abs(layer.bias.astype(np.float64)) / (MAX_BIAS[source.bits] * source.scale)
    least = least.max(keepdims=True) if per_tensor else least
    if (scale >= least).all():
        return np.ascontiguousarray(scale)
    wide = np.maximum(scale, least.astype(np.float32))
    return np.array([short(float(wide[0]))], np.float32) if needs_short_scale(layer, source, per_tensor) else wide


def nearest_layers(
    layers: tuple[Dense, ...], ranges: tuple[LayerRanges, ...], source: Range, per_tensor: bool = False
) -> list[IntegerLayer]:
    """A chain of layers, every weight rounded to the nearest step."""
    sources = (source, *(own.after for own in ranges))
    return [
        IntegerLayer.nearest(layer, x, own, per_tensor) for layer, x, own in zip(layers, sources, ranges, strict=False)
    ]
