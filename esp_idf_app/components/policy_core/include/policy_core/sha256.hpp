// SHA-256 (FIPS 180-4).
#pragma once

#include <cstddef>
#include <cstdint>

namespace policy_core {

constexpr size_t kShaSize = 32;

/// Hashes bytes as they come.
class Sha256 {
public:
    void update(const uint8_t *data, size_t size);
    /// Writes the hash of all bytes so far; the object is used up.
    void finish(uint8_t into[kShaSize]);

private:
    void block(const uint8_t *data);

    uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint64_t total_ = 0;
    uint8_t pending_[64] = {};
};

/// The hash of one run of bytes.
void sha256(const uint8_t *data, size_t size, uint8_t into[kShaSize]);

}  // namespace policy_core
