// The pack reader against packs that are wrong in one way each, and against damage everywhere.
#include <functional>
#include <limits>
#include <memory>

#include "bench.hpp"
#include "check.hpp"
#include "vector_file.hpp"

using namespace policy_core;
using fakes::Buffer;

namespace {

constexpr size_t kSlots = 4;

void set(Buffer *pack, size_t at, uint32_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        (*pack)[at + i] = static_cast<uint8_t>(value >> 8 * i);
    }
}

uint32_t bits(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    return word;
}

/// Makes the hashes right, so that only what is meant is wrong.
Buffer sealed(Buffer pack) {
    for (size_t slot = 0; slot < kSlots; ++slot) {
        uint8_t *record = pack.data() + kPackHeaderSize + slot * kPackSlotSize;
        for (size_t part = 0; part < kParts; ++part) {
            const size_t at = load_u32(record + 16 + 8 * part);
            const size_t size = load_u32(record + 20 + 8 * part);
            if (at <= pack.size() && size <= pack.size() - at) {
                sha256(pack.data() + at, size, record + 32 + 32 * part);
            }
        }
    }
    sha256(pack.data() + kPackHeaderSize, pack.size() - kPackHeaderSize, pack.data() + 16);
    return pack;
}

PackStatus status_of(const Buffer &pack, size_t *slots = nullptr) {
    fakes::Models models(pack);
    auto read = std::make_unique<Pack>();
    const PackStatus status = read_pack(models.partition(), read.get());
    CHECK((status == PackStatus::kOk) == (read->slots > 0));
    if (slots != nullptr) {
        *slots = read->slots;
    }
    return status;
}

/// The places of one slot's fields.
struct Fields {
    Fields(const Buffer &pack, size_t slot) : record(kPackHeaderSize + slot * kPackSlotSize) {
        affine = load_u32(pack.data() + record + 132);
        multipliers = load_u32(pack.data() + record + 136);
        features = load_u16(pack.data() + record + 100);
        ego = load_u16(pack.data() + record + 102);
    }
    size_t at(size_t offset) const { return record + offset; }
    size_t low() const { return affine + 4 * (2 * features + 2 * ego); }

    size_t record;
    size_t affine;
    size_t multipliers;
    size_t features;
    size_t ego;
};

struct Case {
    const char *name;
    size_t at;
    uint32_t value;
    size_t size;
    PackStatus status;
};

void test_fields(const Buffer &good) {
    constexpr PackStatus kBad = PackStatus::kBadSlot;
    constexpr PackStatus kFine = PackStatus::kOk;
    const float infinity = std::numeric_limits<float>::infinity();
    const uint32_t nan = bits(std::numeric_limits<float>::quiet_NaN());
    const uint32_t end = static_cast<uint32_t>(good.size());
    const Fields max(good, 0);
    const Fields mean(good, 1);  // Also a box.
    const Fields sum(good, 2);
    const Fields wide(good, 3);  // Of 16 bits, a mean of up to 3.
    const Case cases[] = {
        {"as it was", max.at(0), 'p', 1, kFine},
        {"no name", max.at(0), 0, 1, kBad},
        {"a name with a space", max.at(1), ' ', 1, kBad},
        {"a name with a control character", max.at(1), 7, 1, kBad},
        {"a name outside ASCII", max.at(1), 0xE9, 1, kBad},
        {"a name after the name", max.at(15), 'x', 1, kBad},
        {"a model that is not aligned", max.at(16), load_u32(good.data() + max.at(16)) + 8, 4, kBad},
        {"a model in the records", max.at(16), 64, 4, kBad},
        {"a model at the end", max.at(16), (end + 15) / 16 * 16, 4, kBad},
        {"a model far away", max.at(16), 0xFFFFFFF0, 4, kBad},
        {"an empty model", max.at(20), 0, 4, kBad},
        {"a model as large as can be", max.at(20), 0xFFFFFFFF, 4, kBad},
        {"a model one byte too large", max.at(28), end - load_u32(good.data() + max.at(24)) + 1, 4, kBad},
        {"a model up to the end", max.at(28), end - load_u32(good.data() + max.at(24)), 4, kFine},
        {"a pooling that is none", max.at(96), 3, 1, kBad},
        {"an action that is none", max.at(97), 2, 1, kBad},
        {"no peers", max.at(98), 0, 1, kBad},
        {"most peers", max.at(98), 16, 1, kFine},
        {"no width", wide.at(99), 0, 1, kBad},
        {"a width between", wide.at(99), 12, 1, kBad},
        {"another width", wide.at(99), 24, 1, kBad},
        {"a finest residual of the peers", max.at(142), 8, 1, kFine},
        {"too fine a residual of the peers", max.at(142), 9, 1, kBad},
        {"a finest residual of the ego", max.at(143), 8, 1, kFine},
        {"too fine a residual of the ego", max.at(143), 9, 1, kBad},
        {"a residual of 16 bits", wide.at(142), 1, 1, kBad},
        {"a residual of an ego of 16 bits", wide.at(143), 1, 1, kBad},
        {"a zero point with 16 bits", wide.at(112), 1, 4, kBad},
        {"a zero point of the head's input with 16 bits", wide.at(120), static_cast<uint32_t>(-1), 4, kBad},
        {"a zero point of the output with 16 bits", wide.at(128), 1, 4, kBad},
        {"largest embedding of 16 bits", wide.at(104), 128, 2, kFine},
        {"a sum of 16 bits that overflows", wide.multipliers + 8 * 2 + 4, 14, 4, kBad},  // 3 * 65535 * 2^14 > 2^31 - 1
        {"a sum of 16 bits that just fits", wide.multipliers + 8 * 2 + 4, 13, 4, kFine},
        {"too many peers", max.at(98), 17, 1, kBad},
        {"no features", max.at(100), 0, 2, kBad},
        {"too many features", max.at(100), 17, 2, kBad},
        {"no ego", max.at(102), 0, 2, kFine},
        {"too large an ego", max.at(102), 65, 2, kBad},
        {"no embedding", max.at(104), 0, 2, kBad},
        {"largest embedding", max.at(104), 128, 2, kFine},
        {"too large an embedding", max.at(104), 129, 2, kBad},
        {"no outputs", max.at(106), 0, 2, kBad},
        {"most outputs", max.at(106), 32, 2, kFine},
        {"too many outputs", max.at(106), 33, 2, kBad},
        {"a scale of 0", max.at(108), 0, 4, kBad},
        {"a scale below 0", max.at(116), bits(-0.5f), 4, kBad},
        {"an infinite scale", max.at(124), bits(infinity), 4, kBad},
        {"a scale that is NaN", max.at(108), nan, 4, kBad},
        {"lowest zero point", max.at(112), static_cast<uint32_t>(-128), 4, kFine},
        {"a zero point too low", max.at(112), static_cast<uint32_t>(-129), 4, kBad},
        {"highest zero point", max.at(120), 127, 4, kFine},
        {"a zero point too high", max.at(120), 128, 4, kBad},
        {"a zero point far off", max.at(128), 0x80000000, 4, kBad},
        {"floats that are not aligned", max.at(132), static_cast<uint32_t>(max.affine) + 2, 4, kBad},
        {"floats in the records", max.at(132), 64, 4, kBad},
        {"floats beyond the end", max.at(132), (end - 4) / 4 * 4, 4, kBad},
        {"floats far away", max.at(132), 0xFFFFFFFC, 4, kBad},
        {"multipliers that are not aligned", max.at(136), static_cast<uint32_t>(max.multipliers) + 1, 4, kBad},
        {"multipliers in the records", max.at(136), 128, 4, kBad},
        {"multipliers beyond the end", max.at(136), (end - 4) / 4 * 4, 4, kBad},
        {"no multiplier", max.at(140), 0, 2, kBad},
        {"a multiplier too many", max.at(140), 2, 2, kBad},
        {"a multiplier too few", mean.at(140), 3, 2, kBad},
        {"a gain that is NaN", max.affine, nan, 4, kBad},
        {"an infinite offset", max.affine + 4 * max.features, bits(infinity), 4, kBad},
        {"an infinite gain of the ego", max.affine + 8 * max.features, bits(-infinity), 4, kBad},
        {"an offset of the ego that is NaN", max.affine + 8 * max.features + 4 * max.ego, nan, 4, kBad},
        {"a gain below 0", max.affine, bits(-3.0f), 4, kFine},
        {"an infinite bound", mean.low(), bits(-infinity), 4, kFine},
        {"a bound that is NaN", mean.low(), nan, 4, kBad},
        {"a lower bound above the upper", mean.low(), bits(2.5001f), 4, kBad},
        {"equal bounds", mean.low(), bits(2.5f), 4, kFine},
        {"a multiplier of 0", max.multipliers, 0, 4, kFine},
        {"a multiplier below its range", max.multipliers, (1u << 30) - 1, 4, kBad},
        {"a multiplier at its lowest", max.multipliers, 1u << 30, 4, kFine},
        {"a multiplier below 0", max.multipliers, 0xC0000000, 4, kBad},
        {"a shift too far right", max.multipliers + 4, static_cast<uint32_t>(-32), 4, kBad},
        {"a shift farthest right", max.multipliers + 4, static_cast<uint32_t>(-31), 4, kFine},
        {"a shift too far left", max.multipliers + 4, 31, 4, kBad},
        {"a shift out of all range", max.multipliers + 4, 0x7FFFFFFF, 4, kBad},
        {"a difference that overflows", max.multipliers + 4, 24, 4, kBad},  // 255 * 2^24 > 2^31 - 1
        {"a difference that just fits", max.multipliers + 4, 23, 4, kFine},
        {"a sum that overflows", sum.multipliers + 4, 23, 4, kBad},  // 510 * 2^23 > 2^31 - 1
        {"a sum that just fits", sum.multipliers + 4, 22, 4, kFine},
        {"a mean's last multiplier", mean.multipliers + 8 * 3, 5, 4, kBad},
    };
    for (const Case &one : cases) {
        Buffer pack = good;
        set(&pack, one.at, one.value, one.size);
        const PackStatus status = status_of(sealed(pack));
        if (status != one.status) {
            ++failures;
            std::fprintf(stderr, "%s: %s\n", one.name, pack_words(status));
        }
        CHECK(pack == good || status_of(pack) == PackStatus::kBadHash);
    }
}

/// Two fields that are right alone: the distance from a zero point is largest at either end.
void test_range(const Buffer &good) {
    const Fields max(good, 0);
    for (const int zero_point : {-128, 127}) {
        Buffer pack = good;
        set(&pack, max.at(112), static_cast<uint32_t>(zero_point), 4);
        set(&pack, max.multipliers + 4, 24, 4);
        CHECK(status_of(sealed(pack)) == PackStatus::kBadSlot);
        set(&pack, max.multipliers + 4, 23, 4);
        CHECK(status_of(sealed(pack)) == PackStatus::kOk);
    }
}

/// A pooling of 16 bits: the largest code alone, and the zero point plays no part.
void test_wide_maximum(const Buffer &good) {
    const Fields wide(good, 3);
    Buffer pack = good;
    set(&pack, wide.at(96), static_cast<uint32_t>(PoolingCode::kMax), 1);
    set(&pack, wide.at(140), 1, 2);
    set(&pack, wide.multipliers + 4, 16, 4);  // 2^15 * 2^16 > 2^31 - 1
    CHECK(status_of(sealed(pack)) == PackStatus::kBadSlot);
    set(&pack, wide.multipliers + 4, 15, 4);
    CHECK(status_of(sealed(pack)) == PackStatus::kOk);
}

/// A slot whose interfaces fit a reply by a byte, and one that is larger by a code.
void test_longest_reply(const Buffer &good) {
    const Fields wide(good, 3);
    // With P = 16, F = 2, D = 80, E = 3 and A = 8: 4 + 32 + 24 + 2 (16 (2 + 80) + 80 + 83 + 8) = 3026.
    Buffer pack = good;
    pack.resize(pack.size() + 1024);  // Room for more floats and multipliers, all zeros.
    const size_t floats = good.size() - good.size() % 4 + 4;
    set(&pack, 8, static_cast<uint32_t>(pack.size()), 4);
    set(&pack, wide.at(97), static_cast<uint32_t>(ActionCode::kDiscrete), 1);
    set(&pack, wide.at(98), 16, 1);
    set(&pack, wide.at(102), 3, 2);
    set(&pack, wide.at(104), 80, 2);
    set(&pack, wide.at(106), 8, 2);
    set(&pack, wide.at(132), static_cast<uint32_t>(floats), 4);
    set(&pack, wide.at(136), static_cast<uint32_t>(floats), 4);
    set(&pack, wide.at(140), 16, 2);
    CHECK(status_of(sealed(pack)) == PackStatus::kOk);
    set(&pack, wide.at(102), 26, 2);  // 3026 + 2 * 23 = 3072
    CHECK(status_of(sealed(pack)) == PackStatus::kOk);
    set(&pack, wide.at(102), 27, 2);
    CHECK(status_of(sealed(pack)) == PackStatus::kBadSlot);
}

/// A name ends within its 16 bytes.
void test_name(const Buffer &good) {
    Buffer pack = good;
    std::fill_n(pack.begin() + kPackHeaderSize, kTrackSize - 1, uint8_t{'x'});
    CHECK(status_of(sealed(pack)) == PackStatus::kOk);
    pack[kPackHeaderSize + kTrackSize - 1] = 'x';
    CHECK(status_of(sealed(pack)) == PackStatus::kBadSlot);
}

void test_header(const Buffer &good) {
    CHECK(status_of(good) == PackStatus::kOk);
    for (size_t size = 0; size < good.size(); ++size) {
        const PackStatus expected = size == 0 ? PackStatus::kEmpty : PackStatus::kBadLength;
        CHECK(status_of(Buffer(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))) == expected);
    }
    Buffer longer = good;
    longer.resize(good.size() + 5000, 0xFF);  // A partition is longer than its pack.
    CHECK(status_of(longer) == PackStatus::kOk);
    const struct {
        size_t at;
        uint32_t value;
        size_t size;
        PackStatus status;
    } cases[] = {
        {0, 'q', 1, PackStatus::kBadMagic},
        {0, 0xFFFFFFFF, 4, PackStatus::kEmpty},
        {0, 0, 4, PackStatus::kEmpty},
        {4, 0, 2, PackStatus::kBadVersion},
        {4, 1, 2, PackStatus::kBadVersion},
        {4, 3, 2, PackStatus::kBadVersion},
        {6, 0, 2, PackStatus::kBadSlot},
        {6, 1, 2, PackStatus::kBadSlot},
        {6, 3, 2, PackStatus::kBadSlot},
        {6, 5, 2, PackStatus::kBadSlot},
        {6, 0xFFFF, 2, PackStatus::kBadLength},
        {8, 63, 4, PackStatus::kBadLength},
        {8, 0xFFFFFFFF, 4, PackStatus::kBadLength},
        {8, static_cast<uint32_t>(good.size()) + 1, 4, PackStatus::kBadLength},
        {8, 64 + 4 * 176, 4, PackStatus::kBadHash},
        {12, 1, 4, PackStatus::kBadVersion},
        {16, 0, 1, PackStatus::kBadHash},
        {63, 1, 1, PackStatus::kBadVersion},
    };
    for (const auto &one : cases) {
        Buffer pack = good;
        set(&pack, one.at, one.value, one.size);
        const PackStatus status = status_of(pack);
        if (status != one.status) {
            ++failures;
            std::fprintf(stderr, "header byte %zu: %s\n", one.at, pack_words(status));
        }
    }
}

/// Every single bit: no damage goes unseen, with hashes made right nothing crashes.
void test_bits(const Buffer &good) {
    for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
        Buffer pack = good;
        pack[bit / 8] = static_cast<uint8_t>(pack[bit / 8] ^ 1u << bit % 8);
        CHECK(status_of(pack) != PackStatus::kOk);
        if (bit / 8 >= kPackHeaderSize) {
            Bench bench(sealed(pack), false);
            CHECK(bench.server.pack_status() != PackStatus::kBadHash);
        }
    }
}

}  // namespace

int main(int count, char **arguments) {
    const auto packs = vectors::packs(vectors::read(count == 2 ? arguments[1] : ""));
    if (packs.count("good") == 0) {
        std::fprintf(stderr, "usage: test_pack vectors.txt\n");
        return 2;
    }
    test_header(packs.at("good"));
    test_fields(packs.at("good"));
    test_name(packs.at("good"));
    test_range(packs.at("good"));
    test_wide_maximum(packs.at("good"));
    test_longest_reply(packs.at("good"));
    test_bits(packs.at("good"));
    return outcome();
}
