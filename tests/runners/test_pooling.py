"""Pooling in integers equals a scalar transcription of what a device runs, and the float pooling to within a step."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.errors import InputError
from quant.policy.policy import Pooling
from quant.runners.flatbuffer import Quantized
from quant.runners.pooling import Pool
from tests.runners.strategies import scales, seeds, zero_points


def device_multiply(x: int, mantissa: int, shift: int) -> int:
    """gemmlowp's two roundings on one int32, the way C++ writes them: truncating division, remainder and threshold."""
    x <<= max(shift, 0)
    product = x * mantissa
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    high = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
    right = max(-shift, 0)
    mask = (1 << right) - 1
    return (high >> right) + (1 if (high & mask) > (mask >> 1) + (1 if high < 0 else 0) else 0)


def device_pool(pool: Pool, codes: list[list[int]]) -> list[int]:
    """One decision: the codes of each peer present -> z."""
    if not codes:
        return [pool.target.zero_point] * pool.source.size
    out = []
    for column in zip(*codes, strict=True):
        if pool.pooling == "max":
            if pool.source.same_quantization(pool.target):
                out.append(max(column))
                continue
            total, multiplier = max(column) - pool.source.zero_point, pool.multipliers[0]
        else:
            total = sum(code - pool.source.zero_point for code in column)
            multiplier = pool.multipliers[len(codes) - 1 if pool.pooling == "mean" else 0]
        code = device_multiply(total, multiplier.mantissa, multiplier.shift) + pool.target.zero_point
        out.append(max(-128, min(127, code)))
    return out


def arranged(pool: Pool, codes: NDArray[np.int8], mask: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(N, P, D) codes -> what the pool takes: peers first, absent ones neutral."""
    return np.ascontiguousarray(np.where(mask[:, :, None], codes, np.int8(pool.neutral)).swapaxes(0, 1))


@settings(max_examples=120, deadline=None)
@given(
    scales(2.0**-8, 2.0**2),
    scales(2.0**-5, 2.0**5) | st.just(np.float32(1)),
    st.tuples(zero_points, zero_points),
    seeds,
)
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_equals_the_scalar_device_code(
    pooling: Pooling, scale: np.float32, ratio: np.float32, zeros: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    zero_e, zero_h = zeros
    source, target = Quantized((1, 5), scale, zero_e), Quantized((1, 9), np.float32(scale * ratio), zero_h)
    pool = Pool.build(pooling, source, target, 4)
    codes = rng.integers(-128, 128, (12, 4, 5)).astype(np.int8)
    codes[:3] = rng.choice([-128, 127], (3, 4, 5))
    mask = rng.random((12, 4)) < 0.6
    mask[0], mask[1] = True, False
    z = pool(arranged(pool, codes, mask), np.ascontiguousarray(mask.T))
    assert z.dtype == np.int8
    for row, present, ours in zip(codes, mask, z, strict=True):
        assert ours.tolist() == device_pool(pool, row[present].tolist())
    # And it means what the float policy means: half a step of the head, and the step both roundings may add.
    real = np.where(mask[:, :, None], source.dequantize(codes).astype(np.float64), -np.inf if pooling == "max" else 0)
    pooled = real.max(axis=1) if pooling == "max" else real.sum(axis=1)
    if pooling == "mean":
        pooled = pooled / np.maximum(mask.sum(axis=1), 1)[:, None]
    pooled[~mask.any(axis=1)] = 0
    reachable = np.clip(pooled / target.scale + zero_h, -128, 127)
    assert np.abs(z - reachable).max() <= 1.0


def test_shared_quantization_copies_the_bytes() -> None:
    source = Quantized((1, 3), np.float32(0.02), -128)
    pool = Pool.build("max", source, Quantized((1, 7), np.float32(0.02), -128), 2)
    codes = np.array([[[-128, 5, 127], [1, 4, -3]]], np.int8)
    z = pool(np.ascontiguousarray(codes.swapaxes(0, 1)), np.ones((2, 1), bool))
    assert z.tolist() == [[1, 5, 127]]


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_scales_too_far_apart_are_refused(pooling: Pooling) -> None:
    with pytest.raises(InputError, match="overflow int32"):
        Pool.build(pooling, Quantized((1, 1), np.float32(2**14), 0), Quantized((1, 1), np.float32(2**-14), 0), 8)
