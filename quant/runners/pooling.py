"""Pooling of embeddings' codes into the head's quantization, in integers a device reproduces.

The encoder's output and the head's input may differ in scale and zero point. Maximum commutes with requantization (both
are monotone), so the codes are compared first. Sum and mean add q - zero_point in int32 and rescale once, with
``MultiplyByQuantizedMultiplier``; the mean has one multiplier for each number of peers n, ``QuantizeMultiplier`` of
(scale_e / scale_h) / n in float64, so that no integer is divided on the device. Without peers z = 0: the head's zero
point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import Mask
from quant.policy.policy import Pooling
from quant.runners.fixed_point import INT32_MAX, Multiplier, multiply_by_quantized_multiplier, quantize_multiplier
from quant.runners.flatbuffer import Quantized
from quant.tracks.candidate import Codes, code_limits, code_type

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Pools embeddings of up to ``max_peers`` peers.

    Attributes:
        pooling: max, sum or mean.
        source: the encoder's output.
        target: the head's input.
        multipliers: of the maximum and the sum, one; of the mean, one for each n from 1.
        table: of int8, what it makes of every code (max), or of every sum and number of peers (sum, mean); else empty.
    """

    pooling: Pooling
    source: Quantized
    target: Quantized
    multipliers: tuple[Multiplier, ...]
    table: Codes

    @staticmethod
    def build(pooling: Pooling, source: Quantized, target: Quantized, max_peers: int) -> Pool:
        """Prepares multipliers and tables.

        Raises:
            InputError: the rescaled sum would overflow int32.
        """
        real = float(source.scale) / float(target.scale)
        counts = range(1, max_peers + 1) if pooling == "mean" else range(1, 2)
        multipliers = tuple(quantize_multiplier(real / n) for n in counts)
        low, high = code_limits(source.bits)
        reach = max(source.zero_point - low, high - source.zero_point)
        if pooling != "max":
            reach = (high - low) * max_peers
        for multiplier in multipliers:
            if reach << max(multiplier.shift, 0) > INT32_MAX:
                raise InputError(
                    "pooled embeddings overflow int32",
                    expected="an encoder output and a head input of similar scale",
                    hint=f"their scales are {source.scale} and {target.scale}",
                )
        pool = Pool(pooling, source, target, multipliers, np.empty((0, 0), np.int8))
        if source.bits != 8:
            return pool
        sums = np.arange(low, high + 1) - source.zero_point if pooling == "max" else np.arange(-reach, reach + 1)
        return replace(pool, table=np.stack([pool._requantized(sums, row) for row in range(len(multipliers))]))

    def _requantized(self, sums: I64, row: I64 | int) -> Codes:
        """Sums of centred codes, by the multipliers of these numbers, as codes of the head."""
        mantissas, shifts = (np.array([getattr(m, key) for m in self.multipliers]) for key in ("mantissa", "shift"))
        scaled = multiply_by_quantized_multiplier(sums, mantissas[row], shifts[row]) + self.target.zero_point
        codes: Codes = np.clip(scaled, *code_limits(self.target.bits)).astype(code_type(self.target.bits))
        return codes

    @property
    def neutral(self) -> int:
        """The code of an absent peer: it changes neither a maximum nor a sum."""
        return code_limits(self.source.bits)[0] if self.pooling == "max" else self.source.zero_point

    def __call__(self, embeddings: Codes, mask: Mask) -> Codes:
        """(P, N, D) codes, absent peers :attr:`neutral`, and (P, N) bool -> (N, D) in the head's quantization.

        Peers come first, so that pooling is P operations on whole arrays.
        """
        z = self._maximum(embeddings) if self.pooling == "max" else self._sum(embeddings, mask)
        z[~mask.any(axis=0)] = self.target.zero_point
        return z

    def _maximum(self, embeddings: Codes) -> Codes:
        z: Codes = embeddings.max(axis=0, initial=self.neutral)
        if self.source.same_quantization(self.target):
            return z
        if not self.table.size:
            return self._requantized(z.astype(np.int64) - self.source.zero_point, 0)
        requantized: Codes = self.table[0].take(z.astype(np.intp) + 128)
        return requantized

    def _sum(self, embeddings: Codes, mask: Mask) -> Codes:
        peers = len(embeddings)
        total: I64 = embeddings.sum(axis=0, dtype=np.int64) - peers * self.source.zero_point
        width = self.table.shape[1]
        row = np.maximum(mask.sum(axis=0), 1) - 1 if self.pooling == "mean" else np.zeros(mask.shape[1], np.int64)
        if not self.table.size:
            return self._requantized(total, row[:, None])
        z: Codes = self.table.ravel().take(total + (row * width + width // 2)[:, None])
        return z
