// Wires the parts together.
#include <cstdio>

#include "board_port/board.hpp"
#include "esp_log.h"
#include "policy_core/server.hpp"
#include "tflm_engine/tflm_engine.hpp"

namespace {

/// Tells people which image this is; tests hold the hash against the file that was flashed.
void announce(const policy_core::Identity &identity, const policy_core::Server &server) {
    char elf[17];
    for (size_t i = 0; i < 8; ++i) {
        std::snprintf(elf + 2 * i, 3, "%02x", identity.elf_sha256[i]);
    }
    ESP_LOGI("boot", "quant %s elf %s target %s slots %u", identity.firmware_version, elf, identity.target,
             static_cast<unsigned>(server.slot_count()));
    if (server.pack_status() != policy_core::PackStatus::kOk) {
        ESP_LOGW("boot", "models: %s; %s", policy_core::pack_words(server.pack_status()), server.model_words());
    }
}

}  // namespace

extern "C" void app_main() {
    const board_port::Board board = board_port::open();
    static tflm_engine::TflmEngine engine;
    static policy_core::Server server(board.line, board.clock, board.models, engine, board.system);
    server.boot();
    announce(board.system.identity(), server);
    for (;;) {
        server.poll();
    }
}
