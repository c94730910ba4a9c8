// Times with the core's cycle counter. The counter is the core's own: the task that serves must stay on one core.
#pragma once

#include <cstdint>

#include "esp_cpu.h"
#include "esp_rom_sys.h"
#include "policy_core/ports.hpp"

namespace board_port {

class CycleClock final : public policy_core::Clock {
public:
    uint32_t ticks() override { return esp_cpu_get_cycle_count(); }
    uint32_t ticks_per_second() const override { return esp_rom_get_cpu_ticks_per_us() * 1000000u; }
};

}  // namespace board_port
