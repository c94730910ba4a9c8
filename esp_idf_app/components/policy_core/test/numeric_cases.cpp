// Computes what is asked on the standard input and writes the results to the standard output, for a comparison with the
// host's arithmetic. Values are as they lie in memory on a little-endian machine. An operation is a byte and its
// operands, among which `code` is i8 or i16 by the bits before it:
//   q  u32 bits, residual bits, n, f32 x[n], gain[n], offset[n]
//      -> code q[n], with a residual q[2 * n]
//   m  u32 n, i32 mantissa, shift, x[n]
//      -> i32 product[n]
//   p  u32 bits, pooling, P, D, M, f32 scale, i32 zero point of source and target, i32 (mantissa, shift)[M], u8 mask[P],
//      code embeddings[P * D]
//      -> code z[D]
//   o  u32 bits, n, f32 scale, i32 zero point, code q[n], f32 low[n], high[n]
//      -> f32 clipped[n], u32 largest
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "policy_core/numeric.hpp"

using namespace policy_core;

namespace {

template <typename T>
std::vector<T> take(size_t count) {
    std::vector<T> values(count);
    if (count > 0 && std::fread(values.data(), sizeof(T), count, stdin) != count) {
        std::fprintf(stderr, "the input is cut off\n");
        std::exit(2);
    }
    return values;
}

template <typename T>
T take() {
    return take<T>(1)[0];
}

template <typename T>
void give(const std::vector<T> &values) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

template <typename Code>
void run_quantize() {
    const auto residual_bits = static_cast<uint8_t>(take<uint32_t>());
    const size_t n = take<uint32_t>();
    const auto x = take<float>(n);
    const auto gain = take<float>(n);
    const auto offset = take<float>(n);
    const Affine affine = {gain.data(), offset.data(), residual_bits};
    std::vector<Code> q(affine.codes(n));
    quantize(x.data(), affine, n, q.data());
    give(q);
}

void run_multiply() {
    const size_t n = take<uint32_t>();
    const Multiplier multiplier = take<Multiplier>();
    std::vector<int32_t> products;
    for (const int32_t x : take<int32_t>(n)) {
        products.push_back(multiply_by_quantized_multiplier(x, multiplier));
    }
    give(products);
}

template <typename Code>
void run_pool() {
    const auto sizes = take<uint32_t>(4);
    const auto tensors = take<Quantization>(2);
    const auto multipliers = take<Multiplier>(sizes[3]);
    const auto mask = take<uint8_t>(sizes[1]);
    const auto embeddings = take<Code>(size_t{sizes[1]} * sizes[2]);
    const Pool pool = {static_cast<PoolingCode>(sizes[0]), tensors[0], tensors[1], multipliers.data()};
    std::vector<Code> z(sizes[2]);
    pool(embeddings.data(), mask.data(), sizes[1], sizes[2], z.data());
    give(z);
}

template <typename Code>
void run_output() {
    const size_t n = take<uint32_t>();
    const Quantization quantization = take<Quantization>();
    const auto q = take<Code>(n);
    const auto low = take<float>(n);
    const auto high = take<float>(n);
    std::vector<float> values(n);
    dequantize(q.data(), quantization, n, values.data());
    const std::vector<uint32_t> largest = {static_cast<uint32_t>(first_largest(values.data(), n))};
    clip(values.data(), low.data(), high.data(), n);
    give(values);
    give(largest);
}

}  // namespace

int main() {
    for (int operation; (operation = std::getchar()) != EOF;) {
        switch (operation) {
            case 'q':
                take<uint32_t>() == 8 ? run_quantize<int8_t>() : run_quantize<int16_t>();
                break;
            case 'm':
                run_multiply();
                break;
            case 'p':
                take<uint32_t>() == 8 ? run_pool<int8_t>() : run_pool<int16_t>();
                break;
            case 'o':
                take<uint32_t>() == 8 ? run_output<int8_t>() : run_output<int16_t>();
                break;
            default:
                std::fprintf(stderr, "no such operation: %d\n", operation);
                return 2;
        }
    }
    return 0;
}
