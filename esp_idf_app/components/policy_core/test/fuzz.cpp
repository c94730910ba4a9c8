// Throws damaged frames and damaged packs at a whole server: fuzz FILE --runs N --seed S. The same arguments, the same
// bytes. It fails if the server crashes, writes what is no frame, or no longer answers right afterwards; and if the
// frames were so dull that some message or some error never came back.
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "bench.hpp"
#include "check.hpp"
#include "policy_core/crc32.hpp"
#include "random.hpp"
#include "vector_file.hpp"

using namespace policy_core;
using fakes::Buffer;

namespace {

constexpr size_t kSlots = 4;  ///< Of the pack: 2 has residuals, 3 codes of 16 bits.
constexpr size_t kFramesPerBoard = 100;
constexpr size_t kFramesPerCheck = 50;
constexpr size_t kEnough = 20000;  ///< Frames after which everything must have come up.

void put(Buffer *into, uint32_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        into->push_back(static_cast<uint8_t>(value >> 8 * i));
    }
}

void put_float(Buffer *into, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    put(into, bits, 4);
}

/// A frame's bytes before COBS.
Buffer raw_frame(uint8_t version, uint8_t type, uint16_t sequence, size_t length, const Buffer &payload) {
    Buffer raw = {version, type};
    put(&raw, sequence, 2);
    put(&raw, static_cast<uint32_t>(length), 2);
    raw.insert(raw.end(), payload.begin(), payload.end());
    put(&raw, crc32(raw.data(), raw.size()), 4);
    return raw;
}

Buffer enclosed(const Buffer &raw) {
    Buffer frame(cobs_limit(raw.size()) + 2);
    const size_t size = cobs_encode(raw.data(), raw.size(), frame.data() + 1);
    frame[size + 1] = 0;
    frame.resize(size + 2);
    return frame;
}

Buffer frame(Message type, uint16_t sequence, const Buffer &payload = {}) {
    return enclosed(raw_frame(kVersion, static_cast<uint8_t>(type), sequence, payload.size(), payload));
}

/// A board, and what is known of it.
struct Subject {
    Subject(const Buffer &pack, bool is_good, bool has_faults)
        : bench(pack, has_faults), good(is_good), faults(has_faults) {}

    Bench bench;
    bool good;  ///< The pack is the whole one.
    bool faults;  ///< It spoils a reply when it is told to.
};

class Fuzzer {
public:
    Fuzzer(const Buffer &pack, uint64_t seed) : pack_(pack), random_(seed) {
        observed_ = {0, kDecideInterfaces, 2, 1, 1};
        for (const float value : {0.5f, 0.0f, 1.0f, 2.0f, -3.0f, 40.0f}) {
            put_float(&observed_, value);
        }
        for (const bool faults : {false, true}) {
            subject_ = std::make_unique<Subject>(pack_, true, faults);
            hello_[faults] = ask(Message::kHello, 1);
            decided_ = without_ticks(ask(Message::kDecide, 2, observed_));
        }
        reboot();
    }

    void run(size_t runs) {
        for (size_t i = 0; i < runs && failures == 0; ++i) {
            if (i % kFramesPerBoard == kFramesPerBoard - 1) {
                reboot();
            }
            read_replies(subject_->bench.say(bytes()));
            if (i % kFramesPerCheck == kFramesPerCheck - 1) {
                check();
            }
            if (failures > 0) {
                std::fprintf(stderr, "after frame %zu\n", i);
            }
        }
        if (runs >= kEnough) {
            check_variety();
        }
    }

    void report() const {
        for (const auto &[what, count] : seen_) {
            std::printf("%-12s %zu\n", what.c_str(), count);
        }
    }

private:
    // --- packs ---

    void reboot() {
        const bool good = random_.one_in(2);
        subject_ = std::make_unique<Subject>(good ? pack_ : damaged_pack(), good, random_.one_in(2));
        decoder_ = Decoder();
        const PackStatus status = subject_->bench.server.pack_status();
        ++seen_["pack " + std::to_string(static_cast<int>(status))];
        CHECK(!good || status == PackStatus::kOk);
        CHECK((status == PackStatus::kOk) == (subject_->bench.server.slot_count() > 0));
    }

    Buffer damaged_pack() {
        Buffer pack = pack_;
        const size_t records = kPackHeaderSize + kSlots * kPackSlotSize;
        for (size_t i = random_.below(3) + 1; i > 0; --i) {
            const size_t end = random_.one_in(3) ? pack.size() : random_.one_in(6) ? kPackHeaderSize : records;
            const size_t begin = end == records ? kPackHeaderSize : 0;
            const size_t width = random_.pick<size_t>({1, 2, 4});
            const size_t at = begin + random_.below((end - begin) / width) * width;
            const uint32_t value = random_.pick<uint32_t>(
                {0, 1, 2, 3, 8, 16, 17, 64, 127, 128, 129, 255, 592, 0x7FFF, 0xFFFF, 0x10000, 0x7F800000, 0x7FC00000,
                 0x7FFFFFFF, 0x80000000, 0xFFFFFF80, 0xFFFFFFFF, static_cast<uint32_t>(random_.next()),
                 static_cast<uint32_t>(pack.size()), static_cast<uint32_t>(pack.size() - 1)});
            for (size_t byte = 0; byte < width; ++byte) {
                pack[at + byte] = static_cast<uint8_t>(value >> 8 * byte);
            }
        }
        if (!random_.one_in(8)) {
            seal(&pack);
        }
        if (random_.one_in(40)) {
            pack.assign(pack.size(), random_.one_in(2) ? 0xFF : 0x00);
        } else if (random_.one_in(16)) {
            pack.resize(random_.below(pack.size() + 1));
        } else if (random_.one_in(16)) {
            pack.resize(pack.size() + random_.below(100), 0xFF);
        }
        return pack;
    }

    /// Makes the hashes right again, so that damage gets past them.
    void seal(Buffer *pack) {
        if (random_.one_in(2)) {
            for (size_t slot = 0; slot < kSlots; ++slot) {
                uint8_t *record = pack->data() + kPackHeaderSize + slot * kPackSlotSize;
                for (size_t part = 0; part < kParts; ++part) {
                    const size_t at = load_u32(record + 16 + 8 * part);
                    const size_t size = load_u32(record + 20 + 8 * part);
                    if (at <= pack->size() && size <= pack->size() - at) {
                        sha256(pack->data() + at, size, record + 32 + 32 * part);
                    }
                }
            }
        }
        sha256(pack->data() + kPackHeaderSize, pack->size() - kPackHeaderSize, pack->data() + 16);
    }

    // --- frames ---

    float number() {
        const float usual = static_cast<float>(random_.below(2001)) / 100.0f - 10.0f;
        return random_.one_in(50) ? random_.pick<float>({0.0f, -0.0f, 3.4e38f, -3.4e38f, 1e-45f, 9.875f, nan_,
                                                         infinity_, -infinity_})
                                  : usual;
    }

    void put_observation(Buffer *into, size_t slot) {
        static constexpr size_t kFeatures[] = {2, 3, 2, 2};
        static constexpr size_t kEgo[] = {2, 1, 1, 1};
        static constexpr size_t kPeers[] = {3, 4, 2, 3};
        const size_t count = random_.below(kPeers[slot % 4] + 1) + (random_.one_in(20) ? random_.below(20) : 0);
        into->push_back(static_cast<uint8_t>(count));
        for (size_t i = 0; i < count; ++i) {
            into->push_back(random_.one_in(200) ? random_.byte() : random_.one_in(3) ? 0 : 1);
        }
        for (size_t i = 0; i < kEgo[slot % 4] + count * kFeatures[slot % 4]; ++i) {
            put_float(into, number());
        }
    }

    uint32_t repeats() {
        return random_.one_in(100) ? random_.pick<uint32_t>({999, 1000, 1001, 65535}) : random_.next() % 4;
    }

    Buffer payload(Message type) {
        Buffer body;
        const uint8_t slot = random_.one_in(30) ? random_.byte() : static_cast<uint8_t>(random_.below(kSlots));
        switch (type) {
            case Message::kDecide:
                body = {slot, random_.one_in(30) ? random_.byte() : static_cast<uint8_t>(random_.below(2))};
                put_observation(&body, slot);
                break;
            case Message::kBench:
                body = {slot};
                put(&body, repeats(), 2);
                put(&body, repeats(), 2);
                put_observation(&body, slot);
                break;
            case Message::kInvoke: {
                static constexpr size_t kInputs[][2] = {{2, 5}, {3, 3}, {4, 4}, {4, 6}};  // Bytes.
                const uint8_t part = random_.one_in(30) ? random_.byte() : static_cast<uint8_t>(random_.below(2));
                body = {slot, part};
                for (size_t i = 0; i < kInputs[slot % 4][part % 2]; ++i) {
                    body.push_back(random_.one_in(20) ? 99 : random_.byte());
                }
                break;
            }
            case Message::kFault:
                body = {static_cast<uint8_t>(random_.one_in(10) ? random_.byte() : random_.below(5))};
                break;
            default:
                break;
        }
        if (random_.one_in(20)) {
            body.resize(random_.below(body.size() + 1));
        } else if (random_.one_in(20)) {
            body.resize(random_.below(random_.one_in(4) ? 3200 : 300), random_.byte());
        } else if (!body.empty() && random_.one_in(10)) {
            body[random_.below(body.size())] = random_.byte();
        }
        return body;
    }

    /// What stands between two delimiters.
    Buffer raw() {
        const uint8_t type = random_.one_in(40) ? random_.byte() : static_cast<uint8_t>(1 + random_.below(kMessages));
        const Buffer body = payload(static_cast<Message>(type));
        sequence_ = static_cast<uint16_t>(sequence_ + (random_.one_in(30) ? 0 : 1));
        const uint8_t version = random_.one_in(40) ? random_.byte() : kVersion;
        const size_t length = random_.one_in(40) ? random_.below(4000) : body.size();
        Buffer bytes = raw_frame(version, type, sequence_, length, body);
        if (random_.one_in(20)) {
            bytes[random_.below(bytes.size())] ^= static_cast<uint8_t>(1u << random_.below(8));
        }
        return bytes;
    }

    /// What is on the line: mostly a frame, often damaged on its way.
    Buffer bytes() {
        if (random_.one_in(50)) {
            return noise();
        }
        Buffer line = enclosed(raw());
        while (!line.empty() && random_.one_in(6)) {
            const size_t at = random_.below(line.size());
            const auto place = line.begin() + static_cast<std::ptrdiff_t>(at);
            switch (random_.below(6)) {
                case 0:
                    line[at] = random_.byte();
                    break;
                case 1:
                    line[at] = 0;
                    break;
                case 2:
                    line.erase(place);
                    break;
                case 3:
                    line.insert(place, random_.one_in(3) ? 0 : random_.byte());
                    break;
                case 4:
                    line.resize(at + 1);  // Cut off: the rest never comes.
                    break;
                default: {
                    const Buffer more = random_.one_in(2) ? noise() : enclosed(raw());
                    line.insert(place, more.begin(), more.end());
                    break;
                }
            }
        }
        return line;
    }

    Buffer noise() {
        Buffer line(random_.below(random_.one_in(10) ? 8000 : 60));
        const bool text = random_.one_in(2);
        for (uint8_t &byte : line) {
            byte = text ? static_cast<uint8_t>(random_.one_in(20) ? '\n' : ' ' + random_.below(95)) : random_.byte();
        }
        return line;
    }

    // --- replies ---

    /// The last frame of what the board wrote, its type first. All of it must be frames; one with a wrong CRC only
    /// where that may have been ordered.
    Buffer read_replies(const Buffer &out) {
        Buffer last;
        for (const uint8_t byte : out) {
            switch (decoder_.push(byte)) {
                case Decoder::Event::kNone:
                    break;
                case Decoder::Event::kText:
                    CHECK(!"text in a reply");
                    break;
                case Decoder::Event::kDamage:
                    CHECK(subject_->faults && decoder_.error() == ErrorCode::kBadCrc);
                    decoder_ = Decoder();
                    break;
                case Decoder::Event::kFrame:
                    last.assign(decoder_.payload(), decoder_.payload() + decoder_.payload_size());
                    last.insert(last.begin(), decoder_.header().type);
                    ++seen_[last[0] == kError ? "error " + std::to_string(last[1])
                                              : "reply " + std::to_string(last[0] & ~kReply)];
                    if (last[0] == (static_cast<uint8_t>(Message::kDecide) | kReply)) {
                        ++seen_["decided " + std::to_string(last[1])];
                    }
                    break;
            }
        }
        return last;
    }

    Buffer ask(Message type, uint16_t sequence, const Buffer &body = {}) {
        return read_replies(subject_->bench.say(frame(type, sequence, body)));
    }

    /// They depend on the clock's past; the rest of slot 0's reply is the same for ever.
    static Buffer without_ticks(Buffer reply) {
        constexpr size_t kTicksAt = 1 + 4 + 4 * 4;
        constexpr size_t kTicksEnd = kTicksAt + 4 * kStages;
        CHECK(reply.size() > kTicksEnd && reply[0] == (static_cast<uint8_t>(Message::kDecide) | kReply));
        if (reply.size() > kTicksEnd) {
            reply.erase(reply.begin() + kTicksAt, reply.begin() + kTicksEnd);
        }
        return reply;
    }

    /// Whatever came before, a HELLO and a DECIDE are answered right. Each is asked twice, because a fault may have
    /// been ordered for the first reply; and a delimiter first ends whatever has begun.
    void check() {
        read_replies(subject_->bench.say({0}));
        ask(Message::kHello, 1);
        CHECK(ask(Message::kHello, 1) == hello_[subject_->faults]);
        ask(Message::kDecide, 2, observed_);
        const Buffer reply = ask(Message::kDecide, 3, observed_);
        if (subject_->good) {
            CHECK(without_ticks(reply) == decided_);
        } else if (subject_->bench.server.slot_count() == 0) {
            CHECK(reply.size() > 2 && reply[0] == kError && reply[1] == static_cast<uint8_t>(ErrorCode::kNoModels));
        } else {
            CHECK(!reply.empty());
        }
    }

    void check_variety() {
        for (int type = 1; type <= 8; ++type) {
            CHECK(seen_["reply " + std::to_string(type)] > 0);
        }
        for (size_t slot = 0; slot < kSlots; ++slot) {
            CHECK(seen_["decided " + std::to_string(slot)] > 0);
        }
        for (int code = 1; code <= 14; ++code) {
            CHECK(seen_["error " + std::to_string(code)] > 0);
        }
        for (int status = 0; status <= 7; ++status) {
            CHECK(seen_["pack " + std::to_string(status)] > 0);
        }
    }

    static constexpr float infinity_ = __builtin_inff();
    static constexpr float nan_ = __builtin_nanf("");

    const Buffer pack_;
    Random random_;
    std::unique_ptr<Subject> subject_;
    Decoder decoder_;
    uint16_t sequence_ = 0;
    std::map<std::string, size_t> seen_;
    Buffer hello_[2];  ///< What HELLO must be answered with, without and with faults.
    Buffer observed_;  ///< A DECIDE's payload for slot 0,
    Buffer decided_;  ///< and its reply without the ticks.
};

}  // namespace

int main(int count, char **arguments) {
    size_t runs = 50000;
    uint64_t seed = 1;
    std::string file;
    for (int i = 1; i < count; ++i) {
        const std::string word = arguments[i];
        if (word == "--runs" && i + 1 < count) {
            runs = std::stoul(arguments[++i]);
        } else if (word == "--seed" && i + 1 < count) {
            seed = std::stoull(arguments[++i]);
        } else {
            file = word;
        }
    }
    const auto packs = vectors::packs(vectors::read(file));
    if (packs.count("good") == 0) {
        std::fprintf(stderr, "usage: fuzz vectors.txt [--runs N] [--seed S]\n");
        return 2;
    }
    Fuzzer fuzzer(packs.at("good"), seed);
    fuzzer.run(runs);
    fuzzer.report();
    return outcome();
}
