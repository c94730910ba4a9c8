#include "tflm_engine/tflm_engine.hpp"

#include <cstring>

#include "model_check.hpp"

namespace tflm_engine {
namespace {

using policy_core::Bytes;
using policy_core::ModelInfo;
using policy_core::PartCode;
using policy_core::TensorInfo;

TensorInfo describe(const TfLiteTensor &tensor) {
    TensorInfo info;
    const size_t width = tensor.type == kTfLiteInt16 ? sizeof(int16_t) : sizeof(int8_t);  // check_model knows no other.
    info.size = static_cast<uint16_t>(tensor.bytes / width);
    info.bits = static_cast<uint8_t>(8 * width);
    info.scale = tensor.params.scale;
    info.zero_point = tensor.params.zero_point;
    return info;
}

}  // namespace

TflmEngine::TflmEngine() {
    resolver_.AddFullyConnected();
    resolver_.AddTanh();
    resolver_.AddLogistic();
    resolver_.AddElu();
}

TflmEngine::SubModel *TflmEngine::find(size_t slot, PartCode part) {
    const size_t index = static_cast<size_t>(part);
    return slot < policy_core::kMaxSlots && index < kParts ? &sub_models_[slot][index] : nullptr;
}

const char *TflmEngine::load(size_t slot, PartCode part, Bytes model, ModelInfo *info) {
    SubModel *own = find(slot, part);
    if (own == nullptr) {
        return "no arena for this slot";
    }
    own->interpreter.reset();
    const CheckedModel checked = check_model(model, own->operators, sizeof own->operators);
    if (checked.words != nullptr) {
        return checked.words;
    }
    if (checked.arena_bound > sizeof own->arena) {
        return "the model might not fit the arena: raise CONFIG_QUANT_ARENA_BYTES";
    }
    // Where preparing fails half-way, the interpreter's destructor looks at records that only a zeroed arena leaves
    // empty.
    std::memset(own->arena, 0, sizeof own->arena);
    own->interpreter.emplace(checked.model, resolver_, own->arena, sizeof own->arena);
    if (own->interpreter->AllocateTensors() != kTfLiteOk) {
        own->interpreter.reset();
        return "TFLite-Micro cannot prepare the model; its log says why";
    }
    info->input = describe(*own->interpreter->input(0));
    info->output = describe(*own->interpreter->output(0));
    info->arena_used = static_cast<uint32_t>(own->interpreter->arena_used_bytes());
    info->arena_size = sizeof own->arena;
    info->operators = own->operators;
    return nullptr;
}

bool TflmEngine::invoke(size_t slot, PartCode part, const void *input, void *output) {
    SubModel *own = find(slot, part);
    if (own == nullptr || !own->interpreter.has_value()) {
        return false;
    }
    TfLiteTensor *in = own->interpreter->input(0);
    const TfLiteTensor *out = own->interpreter->output(0);
    std::memcpy(in->data.raw, input, in->bytes);
    if (own->interpreter->Invoke() != kTfLiteOk) {
        return false;
    }
    std::memcpy(output, out->data.raw, out->bytes);
    return true;
}

const char *TflmEngine::version() const { return "esp-tflite-micro " QUANT_TFLM_VERSION; }

const char *TflmEngine::kernels_version() const { return "esp-nn " QUANT_KERNELS_VERSION; }

}  // namespace tflm_engine
