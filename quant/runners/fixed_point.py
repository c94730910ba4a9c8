"""TFLite-Micro's integer arithmetic, formula by formula, on int64 arrays.

Sources: tflite-micro ``lite/kernels/internal/{common,quantization_util}.cc`` (built without TFLITE_SINGLE_ROUNDING) and
gemmlowp ``fixedpoint/fixedpoint.h``. Values are int32 in C++; here they are held in int64 so that no product overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class Multiplier:
    """A positive real number as TFLM holds it: mantissa * 2^(shift - 31).

    Attributes:
        mantissa: 0, or from 2^30 to 2^31 - 1.
        shift: from -31 up; positive shifts to the left.
    """

    mantissa: int
    shift: int


def quantize_multiplier(real: float) -> Multiplier:
    """``QuantizeMultiplier``: the nearest mantissa of 31 bits; numbers below about 2^-32 are zero."""
    fraction, shift = math.frexp(real)
    # TfLiteRound rounds halves away from zero; fraction * 2^31 is exact, and positive.
    mantissa = math.floor(fraction * (1 << 31) + 0.5)
    if mantissa == 1 << 31:
        mantissa, shift = mantissa // 2, shift + 1
    return Multiplier(0, 0) if shift < -31 else Multiplier(mantissa, shift)


def saturating_rounding_doubling_high_mul(a: I64, b: I64 | int) -> I64:
    """a * b / 2^31 to the nearest, halves up. a and b are int32 and not both -2^31 (which saturates in C++)."""
    # C++ adds a nudge that depends on the sign and truncates towards zero; that is the same as this floor.
    return (a * b + (1 << 30)) >> 31


def rounding_divide_by_pot(x: I64, exponent: I64 | int) -> I64:
    """x / 2^exponent to the nearest, halves away from zero."""
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def multiply_by_quantized_multiplier(x: I64, mantissa: I64 | int, shift: I64 | int) -> I64:
    """``MultiplyByQuantizedMultiplier``: rounds twice. x * 2^max(shift, 0) must be an int32 (C++ would overflow)."""
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(x << left, mantissa), right)


def _rescale_up(x: I64, exponent: int) -> I64:
    """``SaturatingRoundingMultiplyByPOT<exponent>`` for a positive exponent."""
    threshold = (1 << (31 - exponent)) - 1
    return np.where(x > threshold, INT32_MAX, np.where(x < -threshold, INT32_MIN, x << exponent))


_mul = saturating_rounding_doubling_high_mul


def _exp_between_negative_quarter_and_0(a: I64) -> I64:
    """exp(a) for a in [-1/4, 0), Q0.31 to Q0.31: a Taylor expansion around -1/8."""
    constant, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = _mul(x, x)
    x3, x4 = _mul(x2, x), _mul(x2, x2)
    x4_over_4 = rounding_divide_by_pot(x4, 2)
    series = rounding_divide_by_pot(_mul(x4_over_4 + x3, third) + x2, 1)
    return constant + _mul(x + series, constant)


def _exp_on_negative_values(a: I64, integer_bits: int) -> I64:
    """exp(a) for a <= 0, Q(integer_bits).(31 - integer_bits) to Q0.31."""
    fractional_bits = 31 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    modulo = (a & (quarter - 1)) - quarter
    result = _exp_between_negative_quarter_and_0(_rescale_up(modulo, integer_bits))
    remainder = modulo - a
    factors = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}
    for exponent, factor in factors.items():
        if integer_bits > exponent:
            bit = remainder & (1 << (fractional_bits + exponent))
            result = np.where(bit != 0, _mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _reciprocal(a: I64) -> I64:
    """2 / (1 + a) for a in [0, 1), Q0.31 to Q2.29, by three Newton-Raphson steps."""
    # gemmlowp's RoundingHalfSum: (a + 1) / 2, halves away from zero; the sum is positive.
    half_denominator = (a + INT32_MAX + 1) >> 1
    x = 1515870810 + _mul(half_denominator, -1010580540)
    for _ in range(3):
        error = (1 << 29) - _mul(half_denominator, x)
        x = x + _rescale_up(_mul(x, error), 2)
    return x


def tanh(a: I64) -> I64:
    """gemmlowp's tanh, Q4.27 to Q0.31: (1 - exp(-2|a|)) / (1 + exp(-2|a|)) with the sign of a."""
    exponential = _exp_on_negative_values(
        -np.abs(a), 5
    )  # ExactMulByPot<1>: the same raw value in Q5.26 is twice as large
    magnitude = _rescale_up(_reciprocal(exponential) - (1 << 29), 2)
    return np.where(a == 0, 0, np.where(a < 0, -magnitude, magnitude))


def logistic(a: I64) -> I64:
    """gemmlowp's logistic, Q4.27 to Q0.31: 1 / (1 + exp(-|a|)), or one minus it for negative a."""
    exponential = _exp_on_negative_values(-np.abs(a), 4)
    positive = _rescale_up(_reciprocal(exponential), 1)  # ExactMulByPot<-1>: half of Q2.29, read as Q1.30
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, INT32_MAX - positive))
