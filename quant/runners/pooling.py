"""Pooling of int8 embeddings into the head's quantization, in integers a device reproduces.

The encoder's output and the head's input may differ in scale and zero point. Maximum commutes with requantization (both
are monotone), so the bytes are compared first. Sum and mean add q - zero_point in int32 and rescale once, with
``MultiplyByQuantizedMultiplier``; the mean has one multiplier for each number of peers n, ``QuantizeMultiplier`` of
(scale_e / scale_h) / n in float64, so that no integer is divided on the device. Without peers z = 0: the head's zero
point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.policy.observations import Mask
from quant.policy.policy import Pooling
from quant.runners.fixed_point import INT32_MAX, Multiplier, multiply_by_quantized_multiplier, quantize_multiplier
from quant.runners.flatbuffer import Quantized

I64 = NDArray[np.int64]
Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Pool:
    """Pools embeddings of up to ``max_peers`` peers.

    Attributes:
        pooling: max, sum or mean.
        source: the encoder's output.
        target: the head's input.
        multipliers: of the maximum and the sum, one; of the mean, one for each n from 1.
        table: requantized bytes by code (max), or by sum and number of peers (sum, mean); see :meth:`build`.
    """

    pooling: Pooling
    source: Quantized
    target: Quantized
    multipliers: tuple[Multiplier, ...]
    table: Int8

    @staticmethod
    def build(pooling: Pooling, source: Quantized, target: Quantized, max_peers: int) -> Pool:
        """Prepares multipliers and tables.

        Raises:
            InputError: the rescaled sum would overflow int32.
        """
        real = float(source.scale) / float(target.scale)
        counts = range(1, max_peers + 1) if pooling == "mean" else range(1, 2)
        multipliers = tuple(quantize_multiplier(real / n) for n in counts)
        if pooling == "max":
            sums = np.arange(-128, 128) - source.zero_point
        else:
            sums = np.arange(-255 * max_peers, 255 * max_peers + 1)
        for multiplier in multipliers:
            if int(np.abs(sums).max()) << max(multiplier.shift, 0) > INT32_MAX:
                raise InputError(
                    "pooled embeddings overflow int32",
                    expected="an encoder output and a head input of similar scale",
                    hint=f"their scales are {source.scale} and {target.scale}",
                )
        rows = [
            multiply_by_quantized_multiplier(sums, multiplier.mantissa, multiplier.shift) + target.zero_point
            for multiplier in multipliers
        ]
        return Pool(pooling, source, target, multipliers, np.clip(rows, -128, 127).astype(np.int8))

    @property
    def neutral(self) -> int:
        """The code of an absent peer: it changes neither a maximum nor a sum."""
        return -128 if self.pooling == "max" else self.source.zero_point

    def __call__(self, embeddings: Int8, mask: Mask) -> Int8:
        """(P, N, D) int8, absent peers :attr:`neutral`, and (P, N) bool -> (N, D) int8 in the head's quantization.

        Peers come first, so that pooling is P operations on whole arrays.
        """
        z = self._maximum(embeddings) if self.pooling == "max" else self._sum(embeddings, mask)
        z[~mask.any(axis=0)] = self.target.zero_point
        return z

    def _maximum(self, embeddings: Int8) -> Int8:
        z: Int8 = embeddings.max(axis=0, initial=-128)
        if self.source.same_quantization(self.target):
            return z
        requantized: Int8 = self.table[0].take(z.astype(np.intp) + 128)
        return requantized

    def _sum(self, embeddings: Int8, mask: Mask) -> Int8:
        peers = len(embeddings)
        total: I64 = embeddings.sum(axis=0, dtype=np.int64) - peers * self.source.zero_point
        width = self.table.shape[1]
        row = np.maximum(mask.sum(axis=0), 1) - 1 if self.pooling == "mean" else np.zeros(mask.shape[1], np.int64)
        z: Int8 = self.table.ravel().take(total + (row * width + width // 2)[:, None])
        return z
