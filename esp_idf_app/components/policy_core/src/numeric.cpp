#include "policy_core/numeric.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace policy_core {
namespace {

template <typename Code>
constexpr int32_t kLowest = std::numeric_limits<Code>::min();
template <typename Code>
constexpr int32_t kHighest = std::numeric_limits<Code>::max();

/// clamp(value + zero_point) without an overflow on the way.
template <typename Code>
Code saturate(int32_t value, int32_t zero_point) {
    return static_cast<Code>(std::clamp(value, kLowest<Code> - zero_point, kHighest<Code> - zero_point) + zero_point);
}

/// clamp(rint(steps)). The limits are whole numbers: to clamp first gives the same, and only a small number is converted.
template <typename Code>
Code round_to(float steps) {
    return static_cast<Code>(
        std::rint(std::clamp(steps, static_cast<float>(kLowest<Code>), static_cast<float>(kHighest<Code>))));
}

/// a * b / 2^31 to the nearest, halves up: what gemmlowp's nudge and truncating division come to.
int32_t doubling_high_mul(int32_t a, int32_t b) {
    const int64_t product = static_cast<int64_t>(a) * b;
    return static_cast<int32_t>((product + (int64_t{1} << 30)) >> 31);
}

/// x / 2^exponent to the nearest, halves away from zero; exponent from 0 to 31.
int32_t divide_by_power(int32_t x, int32_t exponent) {
    const int32_t mask = static_cast<int32_t>((int64_t{1} << exponent) - 1);
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + ((x & mask) > threshold ? 1 : 0);
}

}  // namespace

bool same_quantization(const Quantization &a, const Quantization &b) {
    return a.scale == b.scale && a.zero_point == b.zero_point;
}

bool all_finite(const float *values, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        if (!std::isfinite(values[i])) {
            return false;
        }
    }
    return true;
}

template <typename Code>
void quantize(const float *x, const Affine &affine, size_t count, Code *q) {
    const auto residual = static_cast<float>(1 << affine.residual_bits);
    for (size_t i = 0; i < count; ++i) {
        const float steps = x[i] * affine.gain[i] + affine.offset[i];
        q[i] = round_to<Code>(steps);
        if (affine.residual_bits != 0) {
            q[count + i] = round_to<Code>((steps - static_cast<float>(q[i])) * residual);
        }
    }
}

int32_t multiply_by_quantized_multiplier(int32_t x, const Multiplier &multiplier) {
    const int32_t left = multiplier.shift > 0 ? multiplier.shift : 0;
    const int32_t right = multiplier.shift > 0 ? 0 : -multiplier.shift;
    const int32_t shifted = static_cast<int32_t>(x * (int64_t{1} << left));
    return divide_by_power(doubling_high_mul(shifted, multiplier.mantissa), right);
}

template <typename Code>
Code Pool::neutral() const {
    return static_cast<Code>(pooling == PoolingCode::kMax ? kLowest<Code> : source.zero_point);
}

template <typename Code>
void Pool::operator()(const Code *embeddings, const uint8_t *mask, size_t peers, size_t size, Code *z) const {
    size_t present = 0;
    for (size_t peer = 0; peer < peers; ++peer) {
        present += mask[peer];
    }
    if (present == 0) {
        for (size_t i = 0; i < size; ++i) {
            z[i] = static_cast<Code>(target.zero_point);
        }
        return;
    }
    const bool is_max = pooling == PoolingCode::kMax;
    const bool copies = is_max && same_quantization(source, target);
    const Multiplier &multiplier = multipliers[pooling == PoolingCode::kMean ? present - 1 : 0];
    for (size_t i = 0; i < size; ++i) {
        // Requantization is monotone, so the codes are compared before it.
        int32_t pooled = is_max ? kLowest<Code> : 0;
        for (size_t peer = 0; peer < peers; ++peer) {
            const int32_t q = embeddings[peer * size + i];
            if (mask[peer] == 0) {
                continue;
            }
            if (!is_max) {
                pooled += q - source.zero_point;
            } else if (q > pooled) {
                pooled = q;
            }
        }
        if (copies) {
            z[i] = static_cast<Code>(pooled);
            continue;
        }
        const int32_t centred = is_max ? pooled - source.zero_point : pooled;
        z[i] = saturate<Code>(multiply_by_quantized_multiplier(centred, multiplier), target.zero_point);
    }
}

template <typename Code>
void dequantize(const Code *q, const Quantization &quantization, size_t count, float *real) {
    for (size_t i = 0; i < count; ++i) {
        real[i] = static_cast<float>(q[i] - quantization.zero_point) * quantization.scale;
    }
}

void clip(float *values, const float *low, const float *high, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const float raised = values[i] > low[i] ? values[i] : low[i];
        values[i] = raised < high[i] ? raised : high[i];
    }
}

size_t first_largest(const float *values, size_t count) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
        if (values[i] > values[best]) {
            best = i;
        }
    }
    return best;
}

template void quantize(const float *, const Affine &, size_t, int8_t *);
template void quantize(const float *, const Affine &, size_t, int16_t *);
template int8_t Pool::neutral() const;
template int16_t Pool::neutral() const;
template void Pool::operator()(const int8_t *, const uint8_t *, size_t, size_t, int8_t *) const;
template void Pool::operator()(const int16_t *, const uint8_t *, size_t, size_t, int16_t *) const;
template void dequantize(const int8_t *, const Quantization &, size_t, float *);
template void dequantize(const int16_t *, const Quantization &, size_t, float *);

}  // namespace policy_core
