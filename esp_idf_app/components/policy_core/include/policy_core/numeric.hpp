// The arithmetic around the sub-models. Every function gives the same bits as its counterpart on the host: float32
// only, no fused multiply-add, rounding half to even; integers as TFLite-Micro has them. `Code` is what crosses the
// interfaces of a sub-model: int8_t or int16_t.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/protocol.hpp"

namespace policy_core {

/// A positive real number as TFLite-Micro holds it: mantissa * 2^(shift - 31), mantissa 0 or from 2^30 up.
struct Multiplier {
    int32_t mantissa = 0;
    int32_t shift = 0;
};

/// A tensor's quantization: real = scale * (q - zero_point). int16 tensors have zero point 0: TFLite-Micro has no other.
struct Quantization {
    float scale = 1.0f;
    int32_t zero_point = 0;
};

/// Whether equal codes mean equal values.
bool same_quantization(const Quantization &a, const Quantization &b);

/// Whether none of the values is NaN or infinite.
bool all_finite(const float *values, size_t count);

/// How features become codes; a view of somebody else's arrays.
struct Affine {
    const float *gain = nullptr;
    const float *offset = nullptr;
    /// Not 0: each feature has a second code, the rounding error of the first times R = 2^residual_bits.
    uint8_t residual_bits = 0;

    /// Codes that `count` features make.
    size_t codes(size_t count) const { return residual_bits == 0 ? count : 2 * count; }
};

/// With v = x * gain + offset, product and sum rounded each, and clamp to the range of Code:
/// q[i] = clamp(rint(v[i])), and with a residual q[count + i] = clamp(rint((v[i] - q[i]) * R)). `x`, gain and offset are
/// finite; a product that overflows saturates.
template <typename Code>
void quantize(const float *x, const Affine &affine, size_t count, Code *q);

/// `MultiplyByQuantizedMultiplier` of tflite-micro's common.cc, which rounds twice (gemmlowp's
/// SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT). shift >= -31, and x * 2^max(shift, 0) is an int32.
int32_t multiply_by_quantized_multiplier(int32_t x, const Multiplier &multiplier);

/// How embeddings become the head's input.
struct Pool {
    PoolingCode pooling = PoolingCode::kMax;
    Quantization source;  ///< The encoder's output.
    Quantization target;  ///< The head's input.
    const Multiplier *multipliers = nullptr;  ///< One; of the mean one for each number of peers from 1.

    /// The code of an absent peer: it changes neither a maximum nor a sum.
    template <typename Code>
    Code neutral() const;
    /// Pools the rows of `embeddings` (peers * size) whose mask is set into `z` (size). Without any, z = 0: the
    /// target's zero point.
    template <typename Code>
    void operator()(const Code *embeddings, const uint8_t *mask, size_t peers, size_t size, Code *z) const;
};

/// real = (q - zero_point) * scale.
template <typename Code>
void dequantize(const Code *q, const Quantization &quantization, size_t count, float *real);

/// min(max(value, low), high), in place.
void clip(float *values, const float *low, const float *high, size_t count);

/// The index of the largest value, the first of equals; `count` >= 1.
size_t first_largest(const float *values, size_t count);

}  // namespace policy_core
