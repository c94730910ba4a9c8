// The model pack: what a flashed partition or a file holds. The reader believes nothing: any bytes may be there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/numeric.hpp"
#include "policy_core/ports.hpp"
#include "policy_core/protocol.hpp"
#include "policy_core/sha256.hpp"

namespace policy_core {

constexpr size_t kParts = 2;
constexpr size_t kStages = static_cast<size_t>(Stage::kTotal) + 1;

/// One track's pair of sub-models and the quantization around them, taken out of a pack.
struct Slot {
    char track[kTrackSize + 1] = {};  ///< NUL-terminated.
    Bytes model[kParts];  ///< In place in the pack, by PartCode.
    uint8_t sha[kParts][kShaSize] = {};
    uint8_t policy_sha[kShaSize] = {};  ///< Of the float policy both were made from.
    PoolingCode pooling = PoolingCode::kMax;
    ActionCode action = ActionCode::kDiscrete;
    uint8_t max_peers = 0;
    uint8_t bits = 8;  ///< Of a code: 8 or 16, at every interface.
    uint8_t peer_residual_bits = 0;  ///< See Affine; 0 to kMaxResidualBits, and 0 with 16 bits.
    uint8_t ego_residual_bits = 0;
    uint16_t features = 0;
    uint16_t ego = 0;
    uint16_t embedding = 0;
    uint16_t outputs = 0;
    Quantization embedding_quantization;
    Quantization head_input;
    Quantization output;
    float peer_gain[kMaxFeatures] = {};
    float peer_offset[kMaxFeatures] = {};
    float ego_gain[kMaxEgo] = {};
    float ego_offset[kMaxEgo] = {};
    float low[kMaxOutputs] = {};  ///< Bounds of a box; unused otherwise.
    float high[kMaxOutputs] = {};
    Multiplier multipliers[kMaxPeers];

    size_t code_size() const { return bits / 8u; }
    Affine peer_affine() const { return {peer_gain, peer_offset, peer_residual_bits}; }
    Affine ego_affine() const { return {ego_gain, ego_offset, ego_residual_bits}; }
    size_t peer_inputs() const { return peer_affine().codes(features); }
    size_t ego_codes() const { return ego_affine().codes(ego); }
    size_t head_inputs() const { return embedding + ego_codes(); }
    size_t input_size(PartCode part) const { return part == PartCode::kPeerEncoder ? peer_inputs() : head_inputs(); }
    size_t output_size(PartCode part) const { return part == PartCode::kPeerEncoder ? embedding : outputs; }
    Pool pool() const { return {pooling, embedding_quantization, head_input, multipliers}; }
    /// Bytes of the longest reply to DECIDE: the codes at every interface, with all peer slots.
    size_t longest_reply() const {
        const size_t codes = max_peers * (peer_inputs() + embedding) + embedding + head_inputs() + outputs;
        return 4u + 4u * outputs + 4u * kStages + code_size() * codes;
    }
};

/// Bytes of a feature's codes: two of 8 bits, or one of 16.
constexpr size_t kFeatureBytes = 2;
/// Bytes of the largest input or output of a sub-model.
constexpr size_t kMaxTensorBytes = 2 * kMaxEmbedding + kFeatureBytes * kMaxEgo;

/// A pack that was read.
struct Pack {
    size_t slots = 0;
    uint32_t bytes = 0;  ///< Header included; 0 unless the whole pack is there.
    uint8_t sha[kShaSize] = {};  ///< Of what follows the header; zeros unless it was found to be so.
    Slot slot[kMaxSlots];
};

/// Reads the pack at the start of `partition`, which is aligned to kPackAlignment and outlives `pack`. The order is:
/// header and lengths, hash of the whole, each slot's fields, hash of each model.
///
/// kEmpty        nothing there, or erased flash (its first four bytes all 0xFF or all 0x00)
/// kBadMagic     something else is there
/// kBadVersion   made for another reader: version, or a reserved byte of the header that is not 0
/// kBadLength    longer than the partition, or too short for its slots
/// kBadHash      the contents, or a model, are not those it was made with
/// kBadSlot      no slots or too many, or a gap between their records and what follows; or a slot's name, width, sizes,
///               offsets, scales, residuals, bounds or multipliers are out of range; or the codes of its interfaces
///               would not fit a reply, so that nobody could hold them against the host's
///
/// With anything but kOk, `pack->slots` is 0. Whether the models fit what the slots say is for the engine to see.
PackStatus read_pack(Bytes partition, Pack *pack);

}  // namespace policy_core
