// The model pack in a file: the environment's QUANT_MODELS names it.
#pragma once

#include "policy_core/ports.hpp"

namespace board_port {

class FileModels final : public policy_core::Models {
public:
    /// Maps the file. Where it is not named, or cannot be read, partition() is empty.
    FileModels();

    policy_core::Bytes partition() override { return mapped_; }

private:
    policy_core::Bytes mapped_;
};

}  // namespace board_port
