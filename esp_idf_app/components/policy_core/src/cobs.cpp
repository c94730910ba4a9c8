#include "policy_core/cobs.hpp"

#include <cstring>

namespace policy_core {
namespace {

constexpr uint8_t kLongest = 0xFF;  // A block of 254 bytes that no zero follows.

}  // namespace

size_t cobs_encode(const uint8_t *data, size_t size, uint8_t *out) {
    size_t written = 0;
    size_t from = 0;
    for (;;) {
        uint8_t code = 1;
        while (from < size && data[from] != 0 && code < kLongest) {
            out[written + code++] = data[from++];
        }
        out[written] = code;
        written += code;
        if (from == size) {
            return written;
        }
        if (code < kLongest) {
            ++from;  // The zero that ended the block; a block is still to follow, be it empty.
            if (from == size) {
                out[written++] = 1;
                return written;
            }
        }
    }
}

size_t cobs_decode(const uint8_t *data, size_t size, uint8_t *out) {
    size_t written = 0;
    size_t from = 0;
    while (from < size) {
        const uint8_t code = data[from++];
        const size_t length = static_cast<size_t>(code) - 1;
        if (code == 0 || length > size - from || (length > 0 && std::memchr(data + from, 0, length) != nullptr)) {
            return kNotCobs;
        }
        std::memmove(out + written, data + from, length);
        written += length;
        from += length;
        if (code < kLongest && from < size) {
            out[written++] = 0;
        }
    }
    return written;
}

}  // namespace policy_core
