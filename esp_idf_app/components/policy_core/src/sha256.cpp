#include "policy_core/sha256.hpp"

#include <cstring>

namespace policy_core {
namespace {

constexpr size_t kBlock = 64;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

uint32_t load_big_endian(const uint8_t *from) {
    return static_cast<uint32_t>(from[0]) << 24 | static_cast<uint32_t>(from[1]) << 16 |
           static_cast<uint32_t>(from[2]) << 8 | static_cast<uint32_t>(from[3]);
}

}  // namespace

void Sha256::block(const uint8_t *data) {
    uint32_t w[16];  // The last 16 words of the message schedule, in a ring.
    uint32_t s[8];
    std::memcpy(s, state_, sizeof s);
    for (size_t t = 0; t < 64; ++t) {
        if (t < 16) {
            w[t] = load_big_endian(data + 4 * t);
        } else {
            const uint32_t w2 = w[(t - 2) % 16];
            const uint32_t w15 = w[(t - 15) % 16];
            w[t % 16] += (rotate(w2, 17) ^ rotate(w2, 19) ^ w2 >> 10) + w[(t - 7) % 16] +
                         (rotate(w15, 7) ^ rotate(w15, 18) ^ w15 >> 3);
        }
        const uint32_t choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        const uint32_t t1 =
            s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choose + kRound[t] + w[t % 16];
        const uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;
        std::memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (size_t i = 0; i < 8; ++i) {
        state_[i] += s[i];
    }
}

void Sha256::update(const uint8_t *data, size_t size) {
    while (size > 0) {
        const size_t have = static_cast<size_t>(total_ % kBlock);
        if (have == 0 && size >= kBlock) {
            block(data);
            total_ += kBlock;
            data += kBlock;
            size -= kBlock;
            continue;
        }
        const size_t take = size < kBlock - have ? size : kBlock - have;
        std::memcpy(pending_ + have, data, take);
        total_ += take;
        data += take;
        size -= take;
        if (have + take == kBlock) {
            block(pending_);
        }
    }
}

void Sha256::finish(uint8_t into[kShaSize]) {
    const uint64_t bits = total_ * 8;
    const uint8_t one = 0x80;
    const uint8_t zero = 0;
    update(&one, 1);
    while (total_ % kBlock != kBlock - 8) {
        update(&zero, 1);
    }
    uint8_t length[8];
    for (size_t i = 0; i < 8; ++i) {
        length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
    }
    update(length, sizeof length);
    for (size_t i = 0; i < kShaSize; ++i) {
        into[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void sha256(const uint8_t *data, size_t size, uint8_t into[kShaSize]) {
    Sha256 hash;
    hash.update(data, size);
    hash.finish(into);
}

}  // namespace policy_core
