// The `models` partition, mapped into the address space: models run from flash, without a copy.
#pragma once

#include "policy_core/ports.hpp"

namespace board_port {

class MappedModels final : public policy_core::Models {
public:
    /// Maps the partition. Where there is none, or it cannot be mapped, the log says so and partition() is empty.
    MappedModels();

    policy_core::Bytes partition() override { return mapped_; }

private:
    policy_core::Bytes mapped_;
};

}  // namespace board_port
