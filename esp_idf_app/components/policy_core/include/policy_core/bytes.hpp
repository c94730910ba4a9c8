// Little-endian values in runs of bytes: the wire's and the pack's. Nothing is read through a cast pointer, because a
// chip may fault on an unaligned load.
#pragma once

#include <cstddef>
#include <cstdint>

namespace policy_core {

uint16_t load_u16(const uint8_t *from);
uint32_t load_u32(const uint8_t *from);
int32_t load_i32(const uint8_t *from);
float load_f32(const uint8_t *from);
void load_floats(const uint8_t *from, size_t count, float *into);

/// Appends values to a buffer of the caller's. What does not fit is left out and noted: see overflowed().
class Writer {
public:
    Writer(uint8_t *buffer, size_t capacity) : buffer_(buffer), capacity_(capacity) {}

    void u8(uint8_t value);
    void u16(uint16_t value);
    void u32(uint32_t value);
    void i32(int32_t value);
    void f32(float value);
    void raw(const void *data, size_t size);
    /// u8 length and the text, cut off after 255 bytes; the parts are written as one text.
    void text(const char *first, const char *second = "", const char *third = "");

    size_t size() const { return size_; }
    bool overflowed() const { return overflowed_; }

private:
    uint8_t *buffer_;
    size_t capacity_;
    size_t size_ = 0;
    bool overflowed_ = false;
};

}  // namespace policy_core
