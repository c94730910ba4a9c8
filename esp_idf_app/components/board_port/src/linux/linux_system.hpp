// Identity, restart and deliberate faults of a process. Whoever starts it plays the part of the reset circuit: it tells
// why in QUANT_RESET_REASON, and starts it again after a panic (SIGABRT) or the watchdog (SIGALRM). QUANT_MAC may give
// it an address of its own, as six hexadecimal bytes with colons.
#pragma once

#include <time.h>

#include <cstdint>

#include "policy_core/ports.hpp"

namespace board_port {

class LinuxSystem final : public policy_core::System {
public:
    /// Starts the watchdog. `models_partition` is its size in bytes.
    explicit LinuxSystem(uint32_t models_partition);

    const policy_core::Identity &identity() const override { return identity_; }
    void stats(policy_core::SystemStats *into) override;
    /// Becomes the program anew, on the same line.
    void restart() override;
    bool fault(policy_core::FaultKind kind) override;
    void alive() override;

private:
    void identify();
    void start_watchdog();

    policy_core::Identity identity_;
    timespec started_ = {};
    timer_t watchdog_ = {};
    uint32_t app_bytes_ = policy_core::kNotAvailable;
    uint32_t models_partition_;
};

}  // namespace board_port
