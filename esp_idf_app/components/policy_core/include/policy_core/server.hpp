// The device's side of the protocol: answers each request once, in order, with its sequence.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/bytes.hpp"
#include "policy_core/decision.hpp"
#include "policy_core/frames.hpp"
#include "policy_core/pack.hpp"
#include "policy_core/ports.hpp"

namespace policy_core {

constexpr uint16_t kMaxWarmup = 1000;

/// Everything a board does with its line. It is large (about 45 KB, half of it the samples of a benchmark): make it one
/// static object. It needs little stack and no heap, and calls its ports from poll() and boot() only.
class Server {
public:
    Server(Line &line, Clock &clock, Models &models, Engine &engine, System &system);
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;

    /// Reads the pack and loads the models; call it once, before poll(). Without a good pack the server still serves,
    /// and MODELS says what is wrong.
    void boot();

    /// One read of the line, and an answer to whatever that completes.
    void poll();

    PackStatus pack_status() const { return status_; }
    /// Tracks that can decide: 0 unless the pack is good.
    size_t slot_count() const { return pack_.slots; }
    /// What the engine has against a model, with PackStatus::kBadModel; empty otherwise.
    const char *model_words() const { return model_words_; }

private:
    struct Request {
        FrameHeader header;
        const uint8_t *payload = nullptr;
        size_t size = 0;
    };
    struct Counters {
        uint32_t decisions = 0;  ///< Of DECIDE and of BENCH, its warm-up included.
        uint32_t invokes = 0;
        uint32_t frames_good = 0;
        uint32_t frames_bad = 0;  ///< Damage of every kind.
        uint32_t bad_crc = 0;  ///< Of these.
        uint32_t noise_bytes = 0;  ///< Text.
    };

    PackStatus load_models();
    const char *load_model(size_t index, PartCode part);

    void damaged();
    void accept(const Request &request);
    void dispatch(const Request &request);
    void hello(const Request &request);
    void models(const Request &request);
    void decide_once(const Request &request);
    void invoke(const Request &request);
    void bench(const Request &request);
    void stats(const Request &request);
    void reset(const Request &request);
    void fault(const Request &request);

    bool empty_body(const Request &request);
    /// The slot that the first byte names; null, and the request is refused, where it is shorter than its `header` too.
    const Slot *find_slot(const Request &request, size_t header);
    bool read_observation(const Request &request, const Slot &slot, size_t offset);
    bool decide_now(const Request &request, const Slot &slot, size_t index);
    Writer reply();
    void send(const Request &request, const Writer &body);
    void refuse(const Request &request, ErrorCode code);
    void transmit(uint8_t type, uint16_t sequence, size_t size);

    Line &line_;
    Clock &clock_;
    Models &models_;
    Engine &engine_;
    System &system_;

    PackStatus status_ = PackStatus::kEmpty;
    const char *model_words_ = "";
    Pack pack_;
    ModelInfo info_[kMaxSlots][kParts];

    Counters counters_;
    bool has_last_ = false;
    uint16_t last_sequence_ = 0;
    bool corrupt_reply_ = false;
    bool corrupt_output_ = false;

    Decoder decoder_;
    FrameBuilder builder_;
    Observation observation_;
    Decision decision_;
    Codes<kMaxTensorBytes> tensor_in_;
    Codes<kMaxTensorBytes> tensor_out_;
    uint8_t chunk_[512] = {};
    uint32_t samples_[kStages][kMaxRepeats] = {};
};

}  // namespace policy_core
