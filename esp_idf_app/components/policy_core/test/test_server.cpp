// What the server does besides answering: when it feeds the watchdog, calls the engine and restarts.
#include <memory>

#include "bench.hpp"
#include "check.hpp"
#include "policy_core/crc32.hpp"
#include "vector_file.hpp"

using namespace policy_core;
using fakes::Buffer;

namespace {

Buffer request(Message type, uint16_t sequence, const Buffer &payload) {
    FrameBuilder builder;
    std::copy(payload.begin(), payload.end(), builder.payload());
    const size_t size = builder.build(static_cast<uint8_t>(type), sequence, payload.size());
    return Buffer(builder.data(), builder.data() + size);
}

/// P = 3 with two peers, an ego of 2 and 2 features, all zeros.
Buffer observation(Buffer head) {
    head.insert(head.end(), {3, 1, 0, 1});
    head.resize(head.size() + 4 * (2 + 3 * 2));
    return head;
}

void test_boot(const Buffer &good) {
    Bench whole(good, false);
    CHECK(whole.server.pack_status() == PackStatus::kOk && whole.server.slot_count() == 4);
    CHECK(std::string(whole.server.model_words()).empty());
    CHECK(whole.engine.invocations == 0);
    Bench none({}, false);
    CHECK(none.server.pack_status() == PackStatus::kEmpty && none.server.slot_count() == 0);
}

void test_engine_is_called_once_for_each_peer(const Buffer &good) {
    auto board = std::make_unique<Bench>(good, false);
    board->say(request(Message::kDecide, 1, observation({0, 0})));
    CHECK(board->engine.invocations == 3);
    board->say(request(Message::kDecide, 1, observation({0, 0})));  // A duplicate.
    CHECK(board->engine.invocations == 3);
}

void test_watchdog_is_fed(const Buffer &good) {
    auto board = std::make_unique<Bench>(good, false);
    board->server.poll();
    CHECK(board->system.beats == 1);
    board->say(request(Message::kBench, 1, observation({0, 200, 0, 0xE8, 0x03})));
    CHECK(board->system.beats >= 1200);
    CHECK(board->engine.invocations == 1200 * 3);
}

void test_restart_follows_the_reply(const Buffer &good) {
    auto board = std::make_unique<Bench>(good, false);
    board->system.line = &board->line;
    const Buffer &out = board->say(request(Message::kReset, 1, {}));
    CHECK(!out.empty() && board->system.written_at_restart == out.size());
}

}  // namespace

int main(int count, char **arguments) {
    const auto packs = vectors::packs(vectors::read(count == 2 ? arguments[1] : ""));
    if (packs.count("good") == 0) {
        std::fprintf(stderr, "usage: test_server vectors.txt\n");
        return 2;
    }
    test_boot(packs.at("good"));
    test_engine_is_called_once_for_each_peer(packs.at("good"));
    test_watchdog_is_fed(packs.at("good"));
    test_restart_follows_the_reply(packs.at("good"));
    return outcome();
}
