#include "policy_core/server.hpp"

#include <cstring>
#include <initializer_list>

namespace policy_core {
namespace {

// The longest replies, with every text at its 255 bytes, must fit: send() has no way to say that one does not.
constexpr size_t kText = 256;
constexpr size_t kHelloSize = 1 + 1 + 2 + 4 + 2 + 1 + 4 + 4 + 2 + 1 + 6 + 2 + kShaSize + 7 * kText;
constexpr size_t kPartSize = 4 + kShaSize + 4 + 4 + 2 * (4 + 4 + 2) + kText;
constexpr size_t kSlotSize = (1 + kTrackSize) + 6 + 4 * 2 + kParts * kPartSize;
constexpr size_t kModelsSize = 1 + kText + kShaSize + 4 + 1 + kMaxSlots * kSlotSize;
static_assert(kHelloSize <= kMaxPayload && kModelsSize <= kMaxPayload, "replies fit; DECIDE's by read_pack");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "codes go over the line as they lie in memory");

constexpr size_t kDecideHeader = 3;  // Slot, flags, peers.
constexpr size_t kInvokeHeader = 2;  // Slot, part.
constexpr size_t kBenchHeader = 6;  // Slot, warm-up, repeats, peers.

bool matches(const TensorInfo &tensor, const Quantization &quantization) {
    return tensor.scale == quantization.scale && tensor.zero_point == quantization.zero_point;
}

/// What is wrong with a loaded sub-model, or null if it is the one its slot declares.
const char *mismatch(const Slot &slot, PartCode part, const ModelInfo &info) {
    const bool is_encoder = part == PartCode::kPeerEncoder;
    if (info.input.bits != slot.bits || info.output.bits != slot.bits) {
        return is_encoder ? "the encoder's tensors are of another width" : "the head's tensors are of another width";
    }
    if (info.input.size != slot.input_size(part) || info.output.size != slot.output_size(part)) {
        return is_encoder ? "the encoder's tensors have other sizes" : "the head's tensors have other sizes";
    }
    if (!is_encoder && !matches(info.input, slot.head_input)) {
        return "the head's input has another scale or zero point";
    }
    if (!matches(info.output, is_encoder ? slot.embedding_quantization : slot.output)) {
        return is_encoder ? "the encoder's output has another scale or zero point"
                          : "the head's output has another scale or zero point";
    }
    return nullptr;
}

void write_part(Writer *body, const Bytes &model, const uint8_t *sha, const ModelInfo &info) {
    body->u32(static_cast<uint32_t>(model.size));
    body->raw(sha, kShaSize);
    body->u32(info.arena_used);
    body->u32(info.arena_size);
    for (const TensorInfo &tensor : {info.input, info.output}) {
        body->f32(tensor.scale);
        body->i32(tensor.zero_point);
        body->u16(tensor.size);
    }
    body->text(info.operators);
}

}  // namespace

Server::Server(Line &line, Clock &clock, Models &models, Engine &engine, System &system)
    : line_(line), clock_(clock), models_(models), engine_(engine), system_(system) {}

void Server::boot() {
    status_ = read_pack(models_.partition(), &pack_);
    if (status_ == PackStatus::kOk) {
        status_ = load_models();
    }
}

PackStatus Server::load_models() {
    for (size_t index = 0; index < pack_.slots; ++index) {
        for (size_t part = 0; part < kParts; ++part) {
            const char *words = load_model(index, static_cast<PartCode>(part));
            if (words != nullptr) {
                model_words_ = words;
                pack_.slots = 0;
                return PackStatus::kBadModel;
            }
        }
    }
    return PackStatus::kOk;
}

const char *Server::load_model(size_t index, PartCode part) {
    const Slot &slot = pack_.slot[index];
    const size_t at = static_cast<size_t>(part);
    const char *words = engine_.load(index, part, slot.model[at], &info_[index][at]);
    return words != nullptr ? words : mismatch(slot, part, info_[index][at]);
}

void Server::poll() {
    system_.alive();
    const size_t size = line_.read(chunk_, sizeof chunk_);
    for (size_t i = 0; i < size; ++i) {
        switch (decoder_.push(chunk_[i])) {
            case Decoder::Event::kNone:
                break;
            case Decoder::Event::kText:
                counters_.noise_bytes += static_cast<uint32_t>(decoder_.text_size());
                break;
            case Decoder::Event::kFrame:
                accept({decoder_.header(), decoder_.payload(), decoder_.payload_size()});
                break;
            case Decoder::Event::kDamage:
                damaged();
                break;
        }
    }
}

void Server::damaged() {
    ++counters_.frames_bad;
    if (decoder_.error() == ErrorCode::kBadCrc) {
        ++counters_.bad_crc;
    }
    refuse({decoder_.has_header() ? decoder_.header() : FrameHeader{}, nullptr, 0}, decoder_.error());
}

void Server::accept(const Request &request) {
    if (request.header.version != kVersion) {
        ++counters_.frames_bad;
        return refuse(request, ErrorCode::kBadVersion);
    }
    ++counters_.frames_good;
    const bool is_hello = request.header.type == static_cast<uint8_t>(Message::kHello);
    if (has_last_ && !is_hello && request.header.sequence == last_sequence_) {
        refuse(request, ErrorCode::kDuplicateSequence);
        return;
    }
    has_last_ = !is_hello;  // A HELLO starts anew: the host behind it may be another.
    last_sequence_ = request.header.sequence;
    dispatch(request);
}

void Server::dispatch(const Request &request) {
    switch (static_cast<Message>(request.header.type)) {
        case Message::kHello:
            return hello(request);
        case Message::kModels:
            return models(request);
        case Message::kDecide:
            return decide_once(request);
        case Message::kInvoke:
            return invoke(request);
        case Message::kBench:
            return bench(request);
        case Message::kStats:
            return stats(request);
        case Message::kReset:
            return reset(request);
        case Message::kFault:
            return fault(request);
    }
    refuse(request, ErrorCode::kUnknownType);
}

void Server::hello(const Request &request) {
    if (!empty_body(request)) {
        return;
    }
    const Identity &identity = system_.identity();
    Writer body = reply();
    body.u8(kVersion);
    body.u8(static_cast<uint8_t>(identity.evidence));
    body.u16(kMaxPayload);
    body.u32(identity.rx_buffer);
    body.u16(kMaxRepeats);
    body.u8(kMaxSlots);
    body.u32(identity.capabilities);
    body.u32(clock_.ticks_per_second());
    body.u16(identity.cpu_mhz);
    body.u8(identity.cores);
    body.raw(identity.mac, sizeof identity.mac);
    body.u16(identity.chip_revision);
    body.raw(identity.elf_sha256, sizeof identity.elf_sha256);
    for (const char *text : {identity.firmware_version, identity.chip, identity.target, identity.idf_version,
                             engine_.version(), engine_.kernels_version(), identity.reset_reason}) {
        body.text(text);
    }
    send(request, body);
}

void Server::models(const Request &request) {
    if (!empty_body(request)) {
        return;
    }
    Writer body = reply();
    body.u8(static_cast<uint8_t>(status_));
    if (model_words_[0] == '\0') {
        body.text(pack_words(status_));
    } else {
        body.text(pack_words(status_), ": ", model_words_);
    }
    body.raw(pack_.sha, sizeof pack_.sha);
    body.u32(pack_.bytes);
    body.u8(static_cast<uint8_t>(pack_.slots));
    for (size_t index = 0; index < pack_.slots; ++index) {
        const Slot &slot = pack_.slot[index];
        body.text(slot.track);
        body.u8(static_cast<uint8_t>(slot.pooling));
        body.u8(static_cast<uint8_t>(slot.action));
        body.u8(slot.max_peers);
        body.u8(slot.bits);
        body.u8(slot.peer_residual_bits);
        body.u8(slot.ego_residual_bits);
        body.u16(slot.features);
        body.u16(slot.ego);
        body.u16(slot.embedding);
        body.u16(slot.outputs);
        for (size_t part = 0; part < kParts; ++part) {
            write_part(&body, slot.model[part], slot.sha[part], info_[index][part]);
        }
    }
    send(request, body);
}

void Server::decide_once(const Request &request) {
    const Slot *slot = find_slot(request, kDecideHeader);
    if (slot == nullptr) {
        return;
    }
    const uint8_t index = request.payload[0];
    const uint8_t flags = request.payload[1];
    if ((flags & ~kDecideInterfaces) != 0) {
        return refuse(request, ErrorCode::kBadArgument);
    }
    if (!read_observation(request, *slot, kDecideHeader) || !decide_now(request, *slot, index)) {
        return;
    }
    if (corrupt_output_) {
        corrupt_output_ = false;
        decision_.outputs.bytes()[0] ^= 1;
        finish(*slot, &decision_);
    }
    Writer body = reply();
    body.u8(index);
    body.u8(static_cast<uint8_t>(decision_.present));
    body.u8(decision_.action);
    body.u8(static_cast<uint8_t>(slot->outputs));
    for (size_t i = 0; i < slot->outputs; ++i) {
        body.f32(decision_.values[i]);
    }
    for (const uint32_t ticks : decision_.ticks) {
        body.u32(ticks);
    }
    if ((flags & kDecideInterfaces) != 0) {
        const size_t size = slot->code_size();
        body.raw(decision_.peer_inputs.bytes(), size * observation_.count * slot->peer_inputs());
        body.raw(decision_.embeddings.bytes(), size * observation_.count * slot->embedding);
        body.raw(decision_.head_inputs.bytes(), size * slot->embedding);
        body.raw(decision_.head_inputs.bytes(), size * slot->head_inputs());
        body.raw(decision_.outputs.bytes(), size * slot->outputs);
    }
    send(request, body);
}

void Server::invoke(const Request &request) {
    const Slot *slot = find_slot(request, kInvokeHeader);
    if (slot == nullptr) {
        return;
    }
    const uint8_t index = request.payload[0];
    const uint8_t code = request.payload[1];
    if (code >= kParts) {
        return refuse(request, ErrorCode::kUnknownSlot);
    }
    const PartCode part = static_cast<PartCode>(code);
    const size_t size = slot->code_size() * slot->input_size(part);
    if (request.size - kInvokeHeader != size) {
        return refuse(request, ErrorCode::kBadLength);
    }
    std::memcpy(tensor_in_.bytes(), request.payload + kInvokeHeader, size);
    const uint32_t began = clock_.ticks();
    const bool done = engine_.invoke(index, part, tensor_in_.bytes(), tensor_out_.bytes());
    clock_.account(part == PartCode::kPeerEncoder ? Stage::kEncode : Stage::kHead, 1);
    const uint32_t ticks = clock_.ticks() - began;
    if (!done) {
        return refuse(request, ErrorCode::kEngineFailed);
    }
    ++counters_.invokes;
    if (corrupt_output_) {
        corrupt_output_ = false;
        tensor_out_.bytes()[0] ^= 1;
    }
    Writer body = reply();
    body.u8(index);
    body.u8(code);
    body.u32(ticks);
    body.raw(tensor_out_.bytes(), slot->code_size() * slot->output_size(part));
    send(request, body);
}

void Server::bench(const Request &request) {
    const Slot *slot = find_slot(request, kBenchHeader);
    if (slot == nullptr) {
        return;
    }
    const uint8_t index = request.payload[0];
    const uint16_t warmup = load_u16(request.payload + 1);
    const uint16_t repeats = load_u16(request.payload + 3);
    if (warmup > kMaxWarmup || repeats < 1 || repeats > kMaxRepeats) {
        return refuse(request, ErrorCode::kBadArgument);
    }
    if (!read_observation(request, *slot, kBenchHeader)) {
        return;
    }
    for (uint32_t run = 0; run < uint32_t{warmup} + repeats; ++run) {
        system_.alive();
        if (!decide_now(request, *slot, index)) {
            return;
        }
        for (size_t stage = 0; run >= warmup && stage < kStages; ++stage) {
            samples_[stage][run - warmup] = decision_.ticks[stage];
        }
    }
    Writer body = reply();
    body.u8(index);
    body.u16(repeats);
    for (uint32_t *samples : samples_) {
        const Distribution ticks = distribution(samples, repeats);
        body.u32(ticks.minimum);
        body.u32(ticks.median);
        body.u32(ticks.p99);
        body.u32(ticks.maximum);
    }
    send(request, body);
}

void Server::stats(const Request &request) {
    if (!empty_body(request)) {
        return;
    }
    SystemStats figures;
    system_.stats(&figures);
    Writer body = reply();
    for (const uint32_t figure : {figures.uptime_ms, figures.heap_free, figures.heap_minimum, figures.stack_left,
                                  figures.app_bytes, figures.app_partition, figures.models_partition, pack_.bytes}) {
        body.u32(figure);
    }
    body.f32(figures.temperature);
    for (const uint32_t count : {counters_.decisions, counters_.invokes, counters_.frames_good, counters_.frames_bad,
                                 counters_.bad_crc, counters_.noise_bytes}) {
        body.u32(count);
    }
    send(request, body);
}

void Server::reset(const Request &request) {
    if (!empty_body(request)) {
        return;
    }
    send(request, reply());
    system_.restart();
}

void Server::fault(const Request &request) {
    if (request.size != 1) {
        return refuse(request, ErrorCode::kBadLength);
    }
    if ((system_.identity().capabilities & static_cast<uint32_t>(Capability::kTestFaults)) == 0) {
        return refuse(request, ErrorCode::kNotAvailable);
    }
    const FaultKind kind = static_cast<FaultKind>(request.payload[0]);
    switch (kind) {
        case FaultKind::kPanic:
        case FaultKind::kHang:
            send(request, reply());
            system_.fault(kind);
            return;
        case FaultKind::kCorruptReply:
            send(request, reply());
            corrupt_reply_ = true;
            return;
        case FaultKind::kCorruptOutput:
            send(request, reply());
            corrupt_output_ = true;
            return;
    }
    refuse(request, ErrorCode::kBadArgument);
}

bool Server::empty_body(const Request &request) {
    if (request.size != 0) {
        refuse(request, ErrorCode::kBadLength);
        return false;
    }
    return true;
}

const Slot *Server::find_slot(const Request &request, size_t header) {
    if (request.size < header) {
        refuse(request, ErrorCode::kBadLength);
        return nullptr;
    }
    if (pack_.slots == 0) {
        refuse(request, ErrorCode::kNoModels);
        return nullptr;
    }
    if (request.payload[0] >= pack_.slots) {
        refuse(request, ErrorCode::kUnknownSlot);
        return nullptr;
    }
    return &pack_.slot[request.payload[0]];
}

bool Server::read_observation(const Request &request, const Slot &slot, size_t offset) {
    const size_t count = request.payload[offset - 1];
    const size_t floats = slot.ego + count * slot.features;
    if (count > slot.max_peers) {
        refuse(request, ErrorCode::kTooManyPeers);
        return false;
    }
    if (request.size != offset + count + floats * sizeof(float)) {
        refuse(request, ErrorCode::kBadLength);
        return false;
    }
    const uint8_t *mask = request.payload + offset;
    for (size_t peer = 0; peer < count; ++peer) {
        if (mask[peer] > 1) {
            refuse(request, ErrorCode::kBadInput);
            return false;
        }
        observation_.mask[peer] = mask[peer];
    }
    observation_.count = count;
    load_floats(mask + count, slot.ego, observation_.ego);
    load_floats(mask + count + slot.ego * sizeof(float), count * slot.features, observation_.peers);
    return true;
}

bool Server::decide_now(const Request &request, const Slot &slot, size_t index) {
    switch (decide(slot, index, observation_, engine_, clock_, &decision_)) {
        case DecisionStatus::kOk:
            ++counters_.decisions;
            return true;
        case DecisionStatus::kNotFinite:
            refuse(request, ErrorCode::kBadInput);
            return false;
        case DecisionStatus::kEngineFailed:
            refuse(request, ErrorCode::kEngineFailed);
            return false;
    }
    return false;
}

Writer Server::reply() { return {builder_.payload(), kMaxPayload}; }

void Server::send(const Request &request, const Writer &body) {
    transmit(static_cast<uint8_t>(request.header.type | kReply), request.header.sequence, body.size());
}

void Server::refuse(const Request &request, ErrorCode code) {
    if (request.header.type == kError) {
        return;  // An error is never answered with an error: a line that echoes would go on for ever.
    }
    Writer body = reply();
    body.u8(static_cast<uint8_t>(code));
    body.u8(request.header.type);
    body.text(error_words(code));
    transmit(kError, request.header.sequence, body.size());
}

void Server::transmit(uint8_t type, uint16_t sequence, size_t size) {
    const bool damage = corrupt_reply_;
    corrupt_reply_ = false;
    line_.write(builder_.data(), builder_.build(type, sequence, size, damage));
}

}  // namespace policy_core
