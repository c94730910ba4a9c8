// The engine port over TFLite-Micro: one interpreter and one arena for each sub-model, all resident at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "policy_core/ports.hpp"
#include "sdkconfig.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace tflm_engine {

/// Large (eight arenas): make it one static object. No heap; models are run where they lie.
class TflmEngine final : public policy_core::Engine {
public:
    TflmEngine();
    TflmEngine(const TflmEngine &) = delete;
    TflmEngine &operator=(const TflmEngine &) = delete;

    /// Checks the model before TFLite-Micro sees it, which trusts its models and its arena, and stops the program where
    /// either is wrong.
    const char *load(size_t slot, policy_core::PartCode part, policy_core::Bytes model,
                     policy_core::ModelInfo *info) override;
    bool invoke(size_t slot, policy_core::PartCode part, const void *input, void *output) override;
    const char *version() const override;
    const char *kernels_version() const override;

private:
    static constexpr size_t kParts = 2;
    static constexpr size_t kOperatorsSize = 192;

    struct SubModel {
        alignas(16) uint8_t arena[CONFIG_QUANT_ARENA_BYTES];
        char operators[kOperatorsSize];
        std::optional<tflite::MicroInterpreter> interpreter;
    };

    SubModel *find(size_t slot, policy_core::PartCode part);

    tflite::MicroMutableOpResolver<4> resolver_;
    SubModel sub_models_[policy_core::kMaxSlots][kParts];
};

}  // namespace tflm_engine
