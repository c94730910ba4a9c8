// The core's arithmetic with its own options on a processor with a fused multiply-add: the product is still rounded.
#include <cmath>

#include "check.hpp"
#include "policy_core/numeric.hpp"

float contracted_steps(float x, float gain, float offset);

int main() {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("fma")) {
        std::fprintf(stderr, "this processor has no fused multiply-add\n");
        return 77;
    }
#endif
    // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 rounds to 1 + 2^-11, and the sum is 0.5, to 0; unrounded it is more, to 1.
    volatile float x = 1.0f + 1.0f / 4096.0f;
    volatile float offset = 0.5f - (1.0f + 1.0f / 2048.0f);
    const float features[] = {x};
    const float gains[] = {x};
    const float offsets[] = {offset};
    int8_t q[] = {99};
    policy_core::quantize(features, {gains, offsets}, 1, q);
    CHECK(q[0] == 0);
    CHECK(std::rint(contracted_steps(x, x, offset)) == 1.0f);  // Else this test could not fail.
    return outcome();
}
