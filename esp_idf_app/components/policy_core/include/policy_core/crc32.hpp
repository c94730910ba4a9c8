// CRC-32 as zlib and Ethernet have it: polynomial 0x04C11DB7 reflected, initial value and final XOR all ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace policy_core {

/// The CRC of `size` bytes; `crc` is that of the bytes before them, 0 at the start.
uint32_t crc32(const uint8_t *data, size_t size, uint32_t crc = 0);

}  // namespace policy_core
