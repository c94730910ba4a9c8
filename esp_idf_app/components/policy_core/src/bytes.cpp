#include "policy_core/bytes.hpp"

#include <cstring>

namespace policy_core {
namespace {

constexpr size_t kMaxText = 255;

size_t shorter(size_t a, size_t b) { return a < b ? a : b; }

}  // namespace

uint16_t load_u16(const uint8_t *from) { return static_cast<uint16_t>(from[0] | from[1] << 8); }

uint32_t load_u32(const uint8_t *from) {
    return static_cast<uint32_t>(load_u16(from)) | static_cast<uint32_t>(load_u16(from + 2)) << 16;
}

int32_t load_i32(const uint8_t *from) { return static_cast<int32_t>(load_u32(from)); }

float load_f32(const uint8_t *from) {
    const uint32_t bits = load_u32(from);
    float value;
    static_assert(sizeof value == sizeof bits, "float32");
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void load_floats(const uint8_t *from, size_t count, float *into) {
    for (size_t i = 0; i < count; ++i) {
        into[i] = load_f32(from + 4 * i);
    }
}

void Writer::u8(uint8_t value) { raw(&value, 1); }

void Writer::u16(uint16_t value) {
    const uint8_t bytes[] = {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8)};
    raw(bytes, sizeof bytes);
}

void Writer::u32(uint32_t value) {
    const uint8_t bytes[] = {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),
                             static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 24)};
    raw(bytes, sizeof bytes);
}

void Writer::i32(int32_t value) { u32(static_cast<uint32_t>(value)); }

void Writer::f32(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    u32(bits);
}

void Writer::raw(const void *data, size_t size) {
    if (size > capacity_ - size_) {
        overflowed_ = true;
        return;
    }
    if (size > 0) {
        std::memcpy(buffer_ + size_, data, size);
        size_ += size;
    }
}

void Writer::text(const char *first, const char *second, const char *third) {
    const char *const parts[] = {first, second, third};
    size_t sizes[3];
    size_t total = 0;
    for (size_t i = 0; i < 3; ++i) {
        sizes[i] = shorter(std::strlen(parts[i]), kMaxText - total);
        total += sizes[i];
    }
    u8(static_cast<uint8_t>(total));
    for (size_t i = 0; i < 3; ++i) {
        raw(parts[i], sizes[i]);
    }
}

}  // namespace policy_core
