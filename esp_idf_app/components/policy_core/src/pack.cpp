#include "policy_core/pack.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "policy_core/bytes.hpp"

namespace policy_core {
namespace {

constexpr size_t kHashed = kPackHeaderSize;  // The hash covers everything after the header.

// Where the fields of a slot's record are.
constexpr size_t kTrackAt = 0;
constexpr size_t kModelsAt = 16;  // Offset and size of the encoder, then of the head.
constexpr size_t kShasAt = 32;
constexpr size_t kKindsAt = 96;
constexpr size_t kSizesAt = 100;
constexpr size_t kEmbeddingAt = 108;
constexpr size_t kHeadInputAt = 116;
constexpr size_t kOutputAt = 124;
constexpr size_t kAffineAt = 132;
constexpr size_t kMultipliersAt = 136;
constexpr size_t kMultiplierCountAt = 140;
constexpr size_t kResidualsAt = 142;  // Bits of the peers', then of the ego's.
constexpr size_t kPolicyShaAt = 144;
static_assert(kPolicyShaAt + kShaSize == kPackSlotSize, "the record's last field ends it");

bool all_equal(const uint8_t *data, size_t size, uint8_t value) {
    for (size_t i = 0; i < size; ++i) {
        if (data[i] != value) {
            return false;
        }
    }
    return true;
}

bool has_hash(const uint8_t *data, size_t size, const uint8_t *expected) {
    uint8_t found[kShaSize];
    sha256(data, size, found);
    return std::memcmp(found, expected, kShaSize) == 0;
}

/// What a slot points into: the whole pack.
struct Body {
    const uint8_t *pack;
    size_t end;

    /// Where `size` bytes at `offset` are, or null if that is outside or not aligned.
    const uint8_t *at(uint32_t offset, size_t size, size_t alignment) const {
        const bool fits = offset <= end && size <= end - offset;
        return fits && offset % alignment == 0 ? pack + offset : nullptr;
    }
};

PackStatus read_header(Bytes partition, Pack *pack, size_t *slots) {
    const uint8_t *data = partition.data;
    constexpr size_t kMagicSize = sizeof kPackMagic;
    if (partition.size == 0) {
        return PackStatus::kEmpty;
    }
    if (partition.size < kMagicSize) {
        return PackStatus::kBadLength;
    }
    if (all_equal(data, kMagicSize, 0xFF) || all_equal(data, kMagicSize, 0x00)) {
        return PackStatus::kEmpty;
    }
    if (std::memcmp(data, kPackMagic, kMagicSize) != 0) {
        return PackStatus::kBadMagic;
    }
    if (partition.size < kPackHeaderSize) {
        return PackStatus::kBadLength;
    }
    if (load_u16(data + 4) != kPackVersion || load_u32(data + 12) != 0 || !all_equal(data + 48, 16, 0)) {
        return PackStatus::kBadVersion;
    }
    *slots = load_u16(data + 6);
    const uint32_t total = load_u32(data + 8);
    if (total > partition.size || total < kPackHeaderSize || *slots > (total - kPackHeaderSize) / kPackSlotSize) {
        return PackStatus::kBadLength;
    }
    pack->bytes = total;
    return PackStatus::kOk;
}

bool read_track(const uint8_t *record, Slot *slot) {
    std::memcpy(slot->track, record + kTrackAt, kTrackSize);
    const size_t length = std::strlen(slot->track);
    for (size_t i = 0; i < length; ++i) {
        if (slot->track[i] <= ' ' || slot->track[i] > '~') {
            return false;
        }
    }
    return length > 0 && length < kTrackSize && all_equal(record + kTrackAt + length, kTrackSize - length, 0);
}

bool read_models(const uint8_t *record, const Body &body, Slot *slot) {
    for (size_t part = 0; part < kParts; ++part) {
        const uint8_t *field = record + kModelsAt + 8 * part;
        const uint32_t size = load_u32(field + 4);
        slot->model[part] = {body.at(load_u32(field), size, kPackAlignment), size};
        std::memcpy(slot->sha[part], record + kShasAt + kShaSize * part, kShaSize);
        if (size == 0 || slot->model[part].data == nullptr) {
            return false;
        }
    }
    std::memcpy(slot->policy_sha, record + kPolicyShaAt, kShaSize);
    return true;
}

bool within(size_t value, size_t least, size_t most) { return value >= least && value <= most; }

bool read_sizes(const uint8_t *record, Slot *slot) {
    const uint8_t *kinds = record + kKindsAt;
    const uint8_t *sizes = record + kSizesAt;
    if (kinds[0] > static_cast<uint8_t>(PoolingCode::kMean) || kinds[1] > static_cast<uint8_t>(ActionCode::kBox) ||
        (kinds[3] != 8 && kinds[3] != 16)) {
        return false;
    }
    slot->pooling = static_cast<PoolingCode>(kinds[0]);
    slot->action = static_cast<ActionCode>(kinds[1]);
    slot->max_peers = kinds[2];
    slot->bits = kinds[3];
    slot->peer_residual_bits = record[kResidualsAt];
    slot->ego_residual_bits = record[kResidualsAt + 1];
    slot->features = load_u16(sizes);
    slot->ego = load_u16(sizes + 2);
    slot->embedding = load_u16(sizes + 4);
    slot->outputs = load_u16(sizes + 6);
    const size_t most_residual_bits = slot->bits == 8 ? kMaxResidualBits : 0u;
    return within(slot->max_peers, 1, kMaxPeers) && within(slot->features, 1, kMaxFeatures) &&
           within(slot->ego, 0, kMaxEgo) && within(slot->embedding, 1, kMaxEmbedding) &&
           within(slot->outputs, 1, kMaxOutputs) && within(slot->peer_residual_bits, 0, most_residual_bits) &&
           within(slot->ego_residual_bits, 0, most_residual_bits) &&
           slot->longest_reply() <= kMaxPayload;
}

bool read_quantization(const uint8_t *field, uint8_t bits, Quantization *into) {
    *into = {load_f32(field), load_i32(field + 4)};
    const bool has_zero_point = bits == 8 ? into->zero_point >= -128 && into->zero_point <= 127 : into->zero_point == 0;
    return std::isfinite(into->scale) && into->scale > 0.0f && has_zero_point;
}

bool read_affine(const uint8_t *record, const Body &body, Slot *slot) {
    const bool is_box = slot->action == ActionCode::kBox;
    const size_t count = 2u * slot->features + 2u * slot->ego + (is_box ? 2u * slot->outputs : 0u);
    const uint8_t *from = body.at(load_u32(record + kAffineAt), count * sizeof(float), alignof(float));
    if (from == nullptr) {
        return false;
    }
    const auto take = [&from](float *into, size_t size) {
        load_floats(from, size, into);
        from += size * sizeof(float);
        return all_finite(into, size);
    };
    if (!take(slot->peer_gain, slot->features) || !take(slot->peer_offset, slot->features) ||
        !take(slot->ego_gain, slot->ego) || !take(slot->ego_offset, slot->ego)) {
        return false;
    }
    if (is_box) {
        take(slot->low, slot->outputs);  // A bound may be infinite, but not NaN.
        take(slot->high, slot->outputs);
        for (size_t i = 0; i < slot->outputs; ++i) {
            if (!(slot->low[i] <= slot->high[i])) {
                return false;
            }
        }
    }
    return true;
}

/// The largest distance from the zero point, or sum of such, that pooling may meet.
int64_t largest_pooled(const Slot &slot) {
    const int64_t zero_point = slot.embedding_quantization.zero_point;
    const int64_t high = (int64_t{1} << (slot.bits - 1)) - 1;
    const int64_t low = -high - 1;
    return slot.pooling == PoolingCode::kMax ? std::max(zero_point - low, high - zero_point)
                                             : (high - low) * slot.max_peers;
}

bool read_multipliers(const uint8_t *record, const Body &body, Slot *slot) {
    const size_t count = load_u16(record + kMultiplierCountAt);
    const size_t expected = slot->pooling == PoolingCode::kMean ? slot->max_peers : 1u;
    const uint8_t *from = body.at(load_u32(record + kMultipliersAt), expected * 8, alignof(int32_t));
    if (count != expected || from == nullptr) {
        return false;
    }
    for (size_t i = 0; i < count; ++i) {
        const Multiplier multiplier = {load_i32(from + 8 * i), load_i32(from + 8 * i + 4)};
        if ((multiplier.mantissa != 0 && multiplier.mantissa < 1 << 30) || multiplier.shift < -31 ||
            multiplier.shift > 30) {
            return false;
        }
        const int64_t shifted = largest_pooled(*slot) * (int64_t{1} << (multiplier.shift > 0 ? multiplier.shift : 0));
        if (shifted > INT32_MAX) {
            return false;
        }
        slot->multipliers[i] = multiplier;
    }
    return true;
}

bool read_slot(const uint8_t *record, const Body &body, Slot *slot) {
    return read_track(record, slot) && read_models(record, body, slot) && read_sizes(record, slot) &&
           read_quantization(record + kEmbeddingAt, slot->bits, &slot->embedding_quantization) &&
           read_quantization(record + kHeadInputAt, slot->bits, &slot->head_input) &&
           read_quantization(record + kOutputAt, slot->bits, &slot->output) && read_affine(record, body, slot) &&
           read_multipliers(record, body, slot);
}

/// Whether what the records point to begins where they end. The header's count of slots is outside the hash: were it
/// too small by damage, tracks would vanish unseen.
bool body_follows(const uint8_t *data, size_t slots) {
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < slots; ++i) {
        const uint8_t *record = data + kPackHeaderSize + i * kPackSlotSize;
        for (const size_t field : {kModelsAt, kModelsAt + 8, kAffineAt, kMultipliersAt}) {
            first = std::min<size_t>(first, load_u32(record + field));
        }
    }
    return first == kPackHeaderSize + slots * kPackSlotSize;
}

}  // namespace

PackStatus read_pack(Bytes partition, Pack *pack) {
    size_t slots = 0;
    pack->slots = 0;
    pack->bytes = 0;
    std::memset(pack->sha, 0, sizeof pack->sha);
    const PackStatus status = read_header(partition, pack, &slots);
    if (status != PackStatus::kOk) {
        return status;
    }
    const uint8_t *data = partition.data;
    const uint8_t *sha = data + 16;
    if (!has_hash(data + kHashed, pack->bytes - kHashed, sha)) {
        return PackStatus::kBadHash;
    }
    std::memcpy(pack->sha, sha, kShaSize);
    if (slots < 1 || slots > kMaxSlots) {
        return PackStatus::kBadSlot;
    }
    if (!body_follows(data, slots)) {
        return PackStatus::kBadSlot;
    }
    const Body body = {data, pack->bytes};
    for (size_t i = 0; i < slots; ++i) {
        if (!read_slot(data + kPackHeaderSize + i * kPackSlotSize, body, &pack->slot[i])) {
            return PackStatus::kBadSlot;
        }
    }
    for (size_t i = 0; i < slots; ++i) {
        for (size_t part = 0; part < kParts; ++part) {
            const Bytes &model = pack->slot[i].model[part];
            if (!has_hash(model.data, model.size, pack->slot[i].sha[part])) {
                return PackStatus::kBadHash;
            }
        }
    }
    pack->slots = slots;
    return PackStatus::kOk;
}

}  // namespace policy_core
