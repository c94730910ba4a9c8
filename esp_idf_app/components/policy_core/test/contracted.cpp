// What quantize() would be with a fused multiply-add: compiled to use one, as the core must not be.
#include <cmath>

float contracted_steps(float x, float gain, float offset) { return x * gain + offset; }
