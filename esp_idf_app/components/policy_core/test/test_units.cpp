// CRC-32, SHA-256, COBS, little-endian values, ranks: against published values and against their own definition.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "policy_core/bytes.hpp"
#include "policy_core/cobs.hpp"
#include "policy_core/crc32.hpp"
#include "policy_core/decision.hpp"
#include "policy_core/frames.hpp"
#include "policy_core/sha256.hpp"
#include "random.hpp"
#include "vector_file.hpp"

using namespace policy_core;
using fakes::Buffer;

namespace {

const uint8_t *bytes_of(const std::string &text) { return reinterpret_cast<const uint8_t *>(text.data()); }

void test_crc32() {
    CHECK(crc32(nullptr, 0) == 0);
    CHECK(crc32(bytes_of("123456789"), 9) == 0xCBF43926u);  // The check value of the catalogue of CRCs.
    CHECK(crc32(bytes_of("6789"), 4, crc32(bytes_of("12345"), 5)) == 0xCBF43926u);
}

std::string sha_of(const std::string &text, size_t portion) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += portion) {
        hash.update(bytes_of(text) + at, std::min(portion, text.size() - at));
    }
    uint8_t sum[kShaSize];
    hash.finish(sum);
    return vectors::hex(sum, sizeof sum);
}

void test_sha256() {
    // FIPS 180-4's examples (NIST, SHA256.pdf), and a million of "a".
    for (const size_t portion : {1u, 3u, 63u, 64u, 65u, 1000u}) {
        CHECK(sha_of("", portion) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        CHECK(sha_of("abc", portion) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        CHECK(sha_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", portion) ==
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
    CHECK(sha_of(std::string(1000000, 'a'), 4096) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void test_cobs() {
    Random random(1);
    for (size_t round = 0; round < 20000; ++round) {
        Buffer data(random.below(round % 10 == 0 ? 1200 : 40));
        const size_t zeros = 1 + random.below(round % 3 == 0 ? 1000 : 4);
        for (uint8_t &byte : data) {
            byte = random.one_in(zeros) ? 0 : static_cast<uint8_t>(1 + random.below(255));
        }
        Buffer encoded(cobs_limit(data.size()));
        encoded.resize(cobs_encode(data.data(), data.size(), encoded.data()));
        CHECK(std::find(encoded.begin(), encoded.end(), 0) == encoded.end());
        const size_t size = cobs_decode(encoded.data(), encoded.size(), encoded.data());  // In place.
        CHECK(size == data.size() && std::equal(data.begin(), data.end(), encoded.begin()));
    }
    const Buffer longest(254, 7);
    uint8_t out[600];
    CHECK(cobs_encode(longest.data(), 254, out) == 255 && out[0] == 0xFF);  // No block follows.
    CHECK(cobs_decode(out, 255, out) == 254);
    for (const Buffer &bad : {Buffer{0}, Buffer{2}, Buffer{3, 1}, Buffer{3, 1, 0}, Buffer{1, 0}, Buffer{2, 5, 9}}) {
        CHECK(cobs_decode(bad.data(), bad.size(), out) == kNotCobs);
    }
}

void test_bytes() {
    uint8_t memory[300];
    Writer writer(memory, sizeof memory);
    writer.u8(0x12);
    writer.u16(0x3456);
    writer.i32(-2);
    writer.f32(1.5f);
    CHECK(vectors::hex(memory, writer.size()) == "125634feffffff0000c03f");
    CHECK(load_u16(memory + 1) == 0x3456 && load_i32(memory + 3) == -2 && load_f32(memory + 7) == 1.5f);
    writer.text("ab", "c", "");
    CHECK(vectors::hex(memory + 11, writer.size() - 11) == "03616263");
    CHECK(!writer.overflowed());

    const std::string most(200, 'x');
    Writer text(memory, sizeof memory);
    text.text(most.c_str(), most.c_str(), "tail");
    CHECK(text.size() == 256 && memory[0] == 255 && memory[255] == 'x');

    Writer narrow(memory, 3);
    narrow.u32(1);
    CHECK(narrow.overflowed() && narrow.size() == 0);
    narrow.u16(1);
    CHECK(narrow.size() == 2);
}

void test_ranks() {
    for (size_t count = 1; count <= 1000; ++count) {
        std::vector<uint32_t> samples(count);
        for (size_t i = 0; i < count; ++i) {
            samples[i] = static_cast<uint32_t>((i * 7919) % count + 1);  // 7919 is prime: each of 1 to count, once.
        }
        const Distribution found = distribution(samples.data(), count);
        // The smallest value that at least the share of all samples does not exceed.
        const auto is_rank = [count](uint32_t value, size_t percent) {
            return 100 * value >= percent * count && 100 * (value - 1) < percent * count;
        };
        CHECK(found.minimum == 1 && found.maximum == count && is_rank(found.median, 50) && is_rank(found.p99, 99));
    }
}

/// The decoder after whatever came before: one good frame between delimiters is always found.
void test_resynchronization() {
    FrameBuilder builder;
    std::memset(builder.payload(), 'p', 20);
    const size_t size = builder.build(4, 42, 20);
    Random random(2);
    for (size_t round = 0; round < 20000; ++round) {
        Decoder decoder;
        for (size_t i = random.below(round % 100 == 0 ? 7000 : 50); i > 0; --i) {
            decoder.push(random.one_in(9) ? 0 : random.byte());
        }
        decoder.push(0);
        size_t frames = 0;
        for (size_t i = 0; i < size; ++i) {
            frames += decoder.push(builder.data()[i]) == Decoder::Event::kFrame;
        }
        CHECK(frames == 1 && decoder.header().sequence == 42 && decoder.payload_size() == 20);
    }
}

}  // namespace

int main() {
    test_crc32();
    test_sha256();
    test_cobs();
    test_bytes();
    test_ranks();
    test_resynchronization();
    return outcome();
}
