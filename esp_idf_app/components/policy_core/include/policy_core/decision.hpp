// A decision: from a complete observation in memory to the action in memory, timed stage by stage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/pack.hpp"
#include "policy_core/ports.hpp"

namespace policy_core {

/// What the policy sees: `count` peer slots, of which those with mask 1 hold a peer.
struct Observation {
    size_t count = 0;
    uint8_t mask[kMaxPeers] = {};
    float ego[kMaxEgo] = {};
    float peers[kMaxPeers * kMaxFeatures] = {};  ///< Row after row, without gaps.
};

/// Room for codes of either width; which one it holds is known from its slot.
template <size_t kBytes>
class alignas(16) Codes {
public:
    template <typename Code>
    Code *as() {
        if constexpr (sizeof(Code) == 1) {
            return narrow_;
        } else {
            return wide_;
        }
    }
    uint8_t *bytes() { return reinterpret_cast<uint8_t *>(this); }

private:
    union {
        int8_t narrow_[kBytes] = {};
        int16_t wide_[kBytes / 2];
    };
};

/// The codes at every interface, row after row without gaps, and the values that come out.
struct Decision {
    Codes<kMaxPeers * kFeatureBytes * kMaxFeatures> peer_inputs;  ///< 0 where no peer is.
    Codes<kMaxPeers * 2 * kMaxEmbedding> embeddings;  ///< The pooling's neutral code where no peer is.
    Codes<kMaxTensorBytes> head_inputs;  ///< [z, ego].
    Codes<2 * kMaxOutputs> outputs;
    float values[kMaxOutputs] = {};  ///< Logits, or actions within their bounds.
    size_t present = 0;
    uint8_t action = kNoAction;  ///< Index of the first largest logit; kNoAction for a box.
    uint32_t ticks[kStages] = {};
};

enum class DecisionStatus : uint8_t {
    kOk,
    kNotFinite,  ///< The ego, or a peer that is present, has a NaN or an infinity.
    kEngineFailed,
};

/// Decides. `observation` fits the slot: count <= max_peers, mask 0 or 1. The decision is whole only with kOk.
DecisionStatus decide(const Slot &slot, size_t index, const Observation &observation, Engine &engine, Clock &clock,
                      Decision *decision);

/// The last stage: `outputs` to `values` and `action`.
void finish(const Slot &slot, Decision *decision);

/// A distribution by nearest rank: of n ascending samples the p-quantile is number ceil(p * n).
struct Distribution {
    uint32_t minimum = 0;
    uint32_t median = 0;
    uint32_t p99 = 0;
    uint32_t maximum = 0;
};

/// Sorts `samples` in place; `count` >= 1.
Distribution distribution(uint32_t *samples, size_t count);

}  // namespace policy_core
