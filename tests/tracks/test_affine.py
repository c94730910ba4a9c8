"""Features to codes and back: int8, int16, and int8 with residuals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quant.observation.observations import F32
from quant.tracks.candidate import Affine, Bits

features = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-40, 40, width=32))
GAIN, OFFSET = np.array([4, 0.5, 7.3], np.float32), np.array([-128, 3.25, 0], np.float32)


@given(features, st.sampled_from((8, 16)))
def test_codes_are_the_nearest_steps(x: F32, bits: Bits) -> None:
    affine = Affine(GAIN, OFFSET, bits)
    q, (low, high) = affine.quantize(x), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    exact = np.clip(x.astype(np.float64) * GAIN + OFFSET, low, high)
    assert q.dtype == f"int{bits}"
    assert q.shape == x.shape
    assert np.abs(q - exact).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(affine.dequantize(q), (q - OFFSET.astype(np.float64)) / GAIN, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("bits", "ends"), [(8, [-128, 127]), (16, [-32768, 32767])])
def test_codes_saturate(bits: Bits, ends: list[int]) -> None:
    affine = Affine(np.ones(1, np.float32), np.zeros(1, np.float32), bits)
    assert affine.quantize(np.array([[-1e9], [1e9]], np.float32)).ravel().tolist() == ends


def test_halves_go_to_the_even_step() -> None:
    affine = Affine(np.ones(1, np.float32), np.zeros(1, np.float32), 16)
    assert affine.quantize(np.array([[0.5], [1.5], [-2.5], [300.5]], np.float32)).ravel().tolist() == [0, 2, -2, 300]


def test_what_rounding_leaves_stands_behind_the_codes() -> None:
    affine = Affine(np.array([1, 2], np.float32), np.array([0, -1], np.float32), residual=16)
    x = np.array([[3.3, 0.5], [-2.5, 70.0], [-3.71, 100.0]], np.float32)
    # Steps: 3.3 and 0; -2.5 and 139; -3.71 and 199. What lies beyond 127 goes into the residual as far as it goes.
    assert affine.quantize(x).tolist() == [[3, 0, 5, 0], [-2, 127, -8, 127], [-4, 127, 5, 127]]
    assert affine.size == 4
    np.testing.assert_array_equal(
        affine.dequantize(np.array([[3, 0, 5, 0], [-2, 127, -8, 16]], np.int8)),
        np.array([[3 + 5 / 16, 0.5], [-2.5, 64.5]], np.float32),
    )


@given(features)
def test_residuals_make_steps_finer(x: F32) -> None:
    inside = np.clip(x, (-127 - OFFSET) / GAIN, (126 - OFFSET) / GAIN).astype(np.float32)
    affine = Affine(GAIN, OFFSET, residual=16)
    assert np.abs((affine.dequantize(affine.quantize(inside)) - inside) * GAIN).max() <= 0.5 / 16 + 1e-3
