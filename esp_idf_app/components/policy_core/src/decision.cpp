#include "policy_core/decision.hpp"

#include <algorithm>

namespace policy_core {
namespace {

/// Times one stage after another.
class Stopwatch {
public:
    Stopwatch(Clock &clock, uint32_t *ticks) : clock_(clock), ticks_(ticks), began_(clock.ticks()), last_(began_) {}

    void end(Stage stage) {
        const uint32_t now = clock_.ticks();
        ticks_[static_cast<size_t>(stage)] = now - last_;
        last_ = now;
    }

    void end_all() { ticks_[static_cast<size_t>(Stage::kTotal)] = clock_.ticks() - began_; }

private:
    Clock &clock_;
    uint32_t *ticks_;
    uint32_t began_;
    uint32_t last_;
};

/// The finite check, and codes of all that is present. False for NaN or infinity.
template <typename Code>
bool quantize_all(const Slot &slot, const Observation &observation, Decision *decision) {
    if (!all_finite(observation.ego, slot.ego)) {
        return false;
    }
    quantize(observation.ego, slot.ego_affine(), slot.ego, decision->head_inputs.as<Code>() + slot.embedding);
    decision->present = 0;
    for (size_t peer = 0; peer < observation.count; ++peer) {
        const float *features = observation.peers + peer * slot.features;
        Code *row = decision->peer_inputs.as<Code>() + peer * slot.peer_inputs();
        if (observation.mask[peer] == 0) {
            std::fill_n(row, slot.peer_inputs(), Code{0});
            continue;
        }
        if (!all_finite(features, slot.features)) {
            return false;
        }
        quantize(features, slot.peer_affine(), slot.features, row);
        ++decision->present;
    }
    return true;
}

template <typename Code>
bool encode_all(const Slot &slot, size_t index, const Observation &observation, Engine &engine, Clock &clock,
                Decision *decision) {
    for (size_t peer = 0; peer < observation.count; ++peer) {
        Code *row = decision->embeddings.as<Code>() + peer * slot.embedding;
        if (observation.mask[peer] == 0) {
            std::fill_n(row, slot.embedding, slot.pool().neutral<Code>());
            continue;
        }
        const Code *inputs = decision->peer_inputs.as<Code>() + peer * slot.peer_inputs();
        if (!engine.invoke(index, PartCode::kPeerEncoder, inputs, row)) {
            return false;
        }
        clock.account(Stage::kEncode, 1);
    }
    return true;
}

template <typename Code>
void finish_codes(const Slot &slot, Decision *decision) {
    dequantize(decision->outputs.as<Code>(), slot.output, slot.outputs, decision->values);
    if (slot.action == ActionCode::kBox) {
        clip(decision->values, slot.low, slot.high, slot.outputs);
        decision->action = kNoAction;
    } else {
        decision->action = static_cast<uint8_t>(first_largest(decision->values, slot.outputs));
    }
}

template <typename Code>
DecisionStatus decide_codes(const Slot &slot, size_t index, const Observation &observation, Engine &engine, Clock &clock,
                            Decision *decision) {
    Stopwatch watch(clock, decision->ticks);
    if (!quantize_all<Code>(slot, observation, decision)) {
        return DecisionStatus::kNotFinite;
    }
    clock.account(Stage::kQuantize, static_cast<uint32_t>(decision->present * slot.peer_inputs() + slot.ego_codes()));
    watch.end(Stage::kQuantize);

    if (!encode_all<Code>(slot, index, observation, engine, clock, decision)) {
        return DecisionStatus::kEngineFailed;
    }
    watch.end(Stage::kEncode);

    slot.pool()(decision->embeddings.as<Code>(), observation.mask, observation.count, slot.embedding,
                decision->head_inputs.as<Code>());
    clock.account(Stage::kPool, static_cast<uint32_t>(decision->present * slot.embedding));
    watch.end(Stage::kPool);

    if (!engine.invoke(index, PartCode::kPolicyHead, decision->head_inputs.bytes(), decision->outputs.bytes())) {
        return DecisionStatus::kEngineFailed;
    }
    clock.account(Stage::kHead, 1);
    watch.end(Stage::kHead);

    finish_codes<Code>(slot, decision);
    clock.account(Stage::kOutput, slot.outputs);
    watch.end(Stage::kOutput);
    watch.end_all();
    return DecisionStatus::kOk;
}

}  // namespace

void finish(const Slot &slot, Decision *decision) {
    slot.bits == 8 ? finish_codes<int8_t>(slot, decision) : finish_codes<int16_t>(slot, decision);
}

DecisionStatus decide(const Slot &slot, size_t index, const Observation &observation, Engine &engine, Clock &clock,
                      Decision *decision) {
    return slot.bits == 8 ? decide_codes<int8_t>(slot, index, observation, engine, clock, decision)
                          : decide_codes<int16_t>(slot, index, observation, engine, clock, decision);
}

Distribution distribution(uint32_t *samples, size_t count) {
    std::sort(samples, samples + count);
    return {samples[0], samples[(count + 1) / 2 - 1], samples[(99 * count + 99) / 100 - 1], samples[count - 1]};
}

}  // namespace policy_core
