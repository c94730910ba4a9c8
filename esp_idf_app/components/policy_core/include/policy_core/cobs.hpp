// Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): bytes without any 0x00, at most one more in 254.
#pragma once

#include <cstddef>
#include <cstdint>

namespace policy_core {

/// The most bytes that `size` bytes become.
constexpr size_t cobs_limit(size_t size) { return size + size / 254 + 1; }

/// What cobs_decode gives for bytes that are no COBS.
constexpr size_t kNotCobs = SIZE_MAX;

/// Encodes into `out`, which has room for cobs_limit(size) bytes and does not overlap `data`; returns how many it took.
size_t cobs_encode(const uint8_t *data, size_t size, uint8_t *out);

/// Decodes bytes without delimiters into `out`, which has room for `size` bytes and may be `data` itself. Returns how
/// many it took, or kNotCobs if there is a 0x00 in them or the last block is cut off; `out` then holds nothing of use.
size_t cobs_decode(const uint8_t *data, size_t size, uint8_t *out);

}  // namespace policy_core
