// Identity, health, restart and deliberate faults of a chip.
#pragma once

#include <cstdint>

#include "policy_core/ports.hpp"
#include "sdkconfig.h"
#include "shared_line.hpp"
#include "soc/soc_caps.h"
#if SOC_TEMP_SENSOR_SUPPORTED
#include "driver/temperature_sensor.h"
#endif

namespace board_port {

class ChipSystem final : public policy_core::System {
public:
    /// Puts the calling task under the task watchdog. `models_partition` is its size in bytes.
    ChipSystem(SharedLine &line, uint32_t models_partition);

    const policy_core::Identity &identity() const override { return identity_; }
    void stats(policy_core::SystemStats *into) override;
    void restart() override;
    bool fault(policy_core::FaultKind kind) override;
    void alive() override;

private:
    void identify();
    void measure_app();
    void start_temperature();
    float temperature();

    SharedLine &line_;
    policy_core::Identity identity_;
    uint32_t app_bytes_ = policy_core::kNotAvailable;
    uint32_t app_partition_ = policy_core::kNotAvailable;
    uint32_t models_partition_;
#if SOC_TEMP_SENSOR_SUPPORTED
    temperature_sensor_handle_t sensor_ = nullptr;
#endif
};

}  // namespace board_port
