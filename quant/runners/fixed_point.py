"""TFLite-Micro's integer arithmetic, formula by formula, on int64 arrays.

Sources: tflite-micro ``lite/kernels/internal/{common,quantization_util}.cc`` (built without TFLITE_SINGLE_ROUNDING),
``reference/integer_ops/{tanh,logistic}.h`` for int16, and gemmlowp ``fixedpoint/fixedpoint.h``. Values are int32 in
C++; here they are held in int64 so that no product overflows.
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


def reduced(multiplier: Multiplier) -> tuple[int, int]:
    """Mantissa of 15 bits and right shift, as an int64 accumulator is multiplied: see `rescale_wide`."""
    mantissa = (multiplier.mantissa + (1 << 15)) >> 16 if multiplier.mantissa < 0x7FFF0000 else 0x7FFF
    return mantissa, 15 - multiplier.shift


def rescale_wide(x: I64, mantissa: I64 | int, shift: I64 | int) -> I64:
    """``MultiplyByQuantizedMultiplier`` of int64: x * mantissa / 2^shift to the nearest, halves up, rounded once.

    x is within 2^47, the mantissa below 2^15, the shift from 8 up (see `reduced`).
    """
    return (x * mantissa + (np.int64(1) << (np.asarray(shift, np.int64) - 1))) >> shift


# fmt: off
SIGMOID = np.array(
    (
        32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064, 42688,
        43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464, 50942, 51409,
        51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433,
        57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110,
        61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186,
        63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308,
        64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900,
        64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208,
        65221, 65234, 65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367,
        65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449,
        65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491,
        65493, 65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
        65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
        65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530,
        65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
        65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535,
    ),
    np.int64,
)
# fmt: on
"""``sigmoid_table_uint16``: about 65536 / (1 + exp(-i / 24)), for int16 TANH and LOGISTIC."""


def table_scaling(scale: float, plain: tuple[int, ...]) -> tuple[int, int]:
    """Multiplier and right shift that turn int16 codes of this scale into steps of 1 / 12288; of scales up to 2.

    Source: ``TanhPrepare`` and ``LogisticPrepare``. What is next to one of the ``plain`` powers of two is taken for it
    (``CheckedLog2``); powers of two come out exact in any case.
    """
    for exponent in plain:
        if abs(math.log2(scale) - exponent) < 1e-3:
            return 3 << (exponent + 12), 0
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= 32767 / 2 and shift <= 30:
        multiplier, shift = multiplier * 2, shift + 1
    return int(multiplier), shift


def _interpolated(q: I64, scaling: tuple[int, int], bits: int) -> tuple[I64, I64]:
    """Steps of 1 / 12288 and, for their magnitudes, the table interpolated between entries 2^bits apart."""
    multiplier, shift = scaling
    x = (q * multiplier + ((1 << shift) >> 1)) >> shift
    index, rest = np.abs(x) >> bits, np.abs(x) & ((1 << bits) - 1)
    low, high = SIGMOID[np.minimum(index, 255)], SIGMOID[np.minimum(index + 1, 255)]
    return x, np.where(index >= 255, -1, (low << bits) + rest * (high - low))


def tanh16(q: I64, scale: float) -> I64:
    """Tanh of int16 codes as codes of 2^-15: 2 sigmoid(2 x) - 1 from the table."""
    x, result = _interpolated(q, table_scaling(scale, (-12, -11)), 8)
    result = np.where(result < 0, 0xFFFF << 8, result)
    return np.where(x >= 0, result - (1 << 23) + (1 << 7), -result + (1 << 23) + (1 << 7) - 1) >> 8


def logistic16(q: I64, scale: float) -> I64:
    """Logistic function of int16 codes as codes of 2^-15."""
    x, result = _interpolated(q, table_scaling(scale, (-12,)), 9)
    result = np.where(result < 0, 0x7FFF << 10, result)
    return np.where(x >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1) >> 10
