// Whether TFLite-Micro can be trusted with a model: it follows offsets, indices and sizes without looking, and a
// constant that is shorter than its shape is read past its end.
#pragma once

#include <cstddef>

#include "policy_core/ports.hpp"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflm_engine {

/// What the check finds in a model.
struct CheckedModel {
    const char *words = nullptr;  ///< Null, or what is wrong with it; of static duration.
    const tflite::Model *model = nullptr;
    size_t arena_bound = 0;  ///< Bytes of arena that are enough, by a margin, to prepare and run it.
};

/// Checks that the bytes are one chain of FULLY_CONNECTED, TANH, LOGISTIC and ELU from the input to the output, int8 or
/// (but for ELU) int16 all along, and writes the operators' names, comma-separated and cut to `size`, into `operators`.
CheckedModel check_model(policy_core::Bytes bytes, char *operators, size_t size);

}  // namespace tflm_engine
