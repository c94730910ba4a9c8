// Times with the host's monotonic clock, in nanoseconds.
#pragma once

#include <time.h>

#include <cstdint>

#include "policy_core/ports.hpp"

namespace board_port {

class LinuxClock final : public policy_core::Clock {
public:
    uint32_t ticks() override {
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        const auto seconds = static_cast<uint64_t>(now.tv_sec);
        return static_cast<uint32_t>(seconds * 1000000000u + static_cast<uint64_t>(now.tv_nsec));
    }
    uint32_t ticks_per_second() const override { return 1000000000u; }
};

}  // namespace board_port
