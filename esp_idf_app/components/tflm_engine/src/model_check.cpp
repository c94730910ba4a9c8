#include "model_check.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tensorflow/compiler/mlir/lite/schema/schema_utils.h"

namespace tflm_engine {
namespace {

constexpr int32_t kMaxDimension = 4096;
constexpr uint32_t kMaxTensors = 256;
constexpr uint32_t kSchemaVersion = 3;
/// Outside these, kernels shift by more bits than a number has.
constexpr float kMinScale = 0x1p-28f;
constexpr float kMaxScale = 0x1p28f;
/// Int16 kernels: `MultiplyByQuantizedMultiplier` of int64 asserts a shift below 8 and an accumulator within 2^47.
constexpr int kWideShifts = 8;
constexpr int64_t kWideAccumulator = int64_t{1} << 47;
/// TANH and LOGISTIC of int16 give steps of 2^-15 and hold 4096 * 3 times the input's scale in 16 bits.
constexpr float kWideOutputScale = 0x1p-15f;
constexpr float kWideInputScale = 32767.0f / 12288.0f;

struct NamedOperator {
    tflite::BuiltinOperator code;
    const char *name;
};
constexpr NamedOperator kOperators[] = {
    {tflite::BuiltinOperator_FULLY_CONNECTED, "FULLY_CONNECTED"},
    {tflite::BuiltinOperator_TANH, "TANH"},
    {tflite::BuiltinOperator_LOGISTIC, "LOGISTIC"},
    {tflite::BuiltinOperator_ELU, "ELU"},
};

template <typename T>
uint32_t count(const flatbuffers::Vector<T> *vector) {
    return vector == nullptr ? 0 : vector->size();
}

const char *name_of(tflite::BuiltinOperator code) {
    for (const NamedOperator &known : kOperators) {
        if (known.code == code) {
            return known.name;
        }
    }
    return nullptr;
}

void append(char *text, size_t size, const char *name) {
    const size_t used = std::strlen(text);
    const size_t need = std::strlen(name) + (used == 0 ? 0 : 1);
    if (used + need < size) {
        std::strcat(text, used == 0 ? "" : ",");
        std::strcat(text, name);
    }
}

/// Values of a tensor, or 0 if its shape is none.
uint32_t value_count(const tflite::Tensor &tensor) {
    if (count(tensor.shape()) == 0 || count(tensor.shape()) > 4) {
        return 0;
    }
    uint32_t values = 1;
    for (const int32_t dimension : *tensor.shape()) {
        if (dimension < 1 || dimension > kMaxDimension || values > UINT32_MAX / kMaxDimension) {
            return 0;
        }
        values *= static_cast<uint32_t>(dimension);
    }
    return values;
}

/// Bytes of a value, or 0 for a type that no tensor here has.
size_t width_of(const tflite::Tensor &tensor) {
    switch (tensor.type()) {
        case tflite::TensorType_INT8:
            return 1;
        case tflite::TensorType_INT16:
            return 2;
        case tflite::TensorType_INT32:
            return 4;
        case tflite::TensorType_INT64:
            return 8;
        default:
            return 0;
    }
}

bool is_code(const tflite::Tensor &tensor) {
    return tensor.type() == tflite::TensorType_INT8 || tensor.type() == tflite::TensorType_INT16;
}

size_t bytes_of(const tflite::Tensor &tensor) { return width_of(tensor) * value_count(tensor); }

float scale_of(const tflite::Tensor &tensor) { return tensor.quantization()->scale()->Get(0); }

bool same_shape(const tflite::Tensor &a, const tflite::Tensor &b) {
    return std::equal(a.shape()->begin(), a.shape()->end(), b.shape()->begin(), b.shape()->end());
}

/// Whether an accumulator of this size, moved left as the int8 kernel does before it multiplies, is no int32 any more.
bool overflows(int64_t largest, int shift) { return shift > 30 || (largest << std::max(shift, 0)) > INT32_MAX; }

/// Whether the int16 kernel cannot multiply an accumulator of this size, or its product is no int32 before the clamp.
bool overflows_wide(int64_t largest, int shift) {
    return shift >= kWideShifts || largest >= kWideAccumulator ||
           std::ldexp(static_cast<double>(largest), shift) >= static_cast<double>(INT32_MAX);
}

/// The same for every weight scale, whose multiplier lies below 2^shift.
bool overflows(int64_t largest, const tflite::Tensor &in, const tflite::Tensor &weight, const tflite::Tensor &out) {
    const double ratio = static_cast<double>(scale_of(in)) / scale_of(out);
    for (const float scale : *weight.quantization()->scale()) {
        int shift = 0;
        std::frexp(ratio * scale, &shift);
        shift += 1;  // For a mantissa that rounds up to 1.
        if (in.type() == tflite::TensorType_INT16 ? overflows_wide(largest, shift) : overflows(largest, shift)) {
            return true;
        }
    }
    return false;
}

class Checker {
public:
    explicit Checker(const tflite::Model &model) : model_(model) {}

    const char *run(char *operators, size_t size);
    size_t arena_bound() const;

private:
    const char *check_tensor(const tflite::Tensor &tensor) const;
    bool check_quantization(const tflite::Tensor &tensor) const;
    const char *check_operator(const tflite::Operator &op, char *operators, size_t size);
    const char *check_fully_connected(const tflite::Operator &op, const tflite::Tensor &in, const tflite::Tensor &out);
    const char *check_activation(tflite::BuiltinOperator code, const tflite::Tensor &in, const tflite::Tensor &out) const;
    int64_t largest_bias(const tflite::Tensor &bias) const;

    /// The tensor, or null if the index is out of range.
    const tflite::Tensor *tensor(int32_t index) const {
        const auto *tensors = graph_->tensors();
        return index < 0 || static_cast<uint32_t>(index) >= tensors->size() ? nullptr : tensors->Get(index);
    }
    uint32_t stored_bytes(const tflite::Tensor &tensor) const {
        return count(model_.buffers()->Get(tensor.buffer())->data());
    }
    bool is_activation(const tflite::Tensor &tensor) const {
        return tensor.type() == type_ && stored_bytes(tensor) == 0;
    }

    const tflite::Model &model_;
    const tflite::SubGraph *graph_ = nullptr;
    tflite::TensorType type_ = tflite::TensorType_INT8;  ///< Of the activations.
    int32_t current_ = -1;  ///< The tensor that the chain has come to.
    size_t tables_ = 0;  ///< ELU operators.
    size_t channels_ = 0;  ///< Weight scales of all operators,
    size_t most_channels_ = 0;  ///< and of the one with the most.
    size_t most_activations_ = 0;  ///< Bytes of the largest input and output of one operator.
};

const char *Checker::run(char *operators, size_t size) {
    if (model_.version() != kSchemaVersion || count(model_.subgraphs()) != 1 || count(model_.buffers()) == 0) {
        return "not one graph of the TFLite schema, version 3";
    }
    graph_ = model_.subgraphs()->Get(0);
    if (count(graph_->inputs()) != 1 || count(graph_->outputs()) != 1 || count(graph_->operators()) == 0 ||
        count(graph_->tensors()) == 0 || graph_->tensors()->size() > kMaxTensors ||
        graph_->operators()->size() > kMaxTensors) {
        return "not a graph of one input and one output";
    }
    for (const tflite::Tensor *each : *graph_->tensors()) {
        if (const char *words = check_tensor(*each)) {
            return words;
        }
    }
    current_ = graph_->inputs()->Get(0);
    if (tensor(current_) == nullptr || !is_code(*tensor(current_)) || stored_bytes(*tensor(current_)) != 0) {
        return "the input is neither an int8 nor an int16 tensor";
    }
    type_ = tensor(current_)->type();
    for (const tflite::Operator *each : *graph_->operators()) {
        if (const char *words = check_operator(*each, operators, size)) {
            return words;
        }
    }
    return current_ == graph_->outputs()->Get(0) ? nullptr : "the last operator does not make the output";
}

const char *Checker::check_tensor(const tflite::Tensor &tensor) const {
    const uint32_t values = value_count(tensor);
    if (values == 0 || tensor.buffer() >= model_.buffers()->size() || tensor.is_variable() ||
        tensor.sparsity() != nullptr) {
        return "a tensor has no shape or no buffer";
    }
    if (width_of(tensor) == 0) {
        return "a tensor is none of int8, int16, int32 and int64";
    }
    const uint32_t stored = stored_bytes(tensor);
    if (stored != 0 && stored != bytes_of(tensor)) {
        return "a constant is not as long as its shape";
    }
    return is_code(tensor) && !check_quantization(tensor) ? "a tensor of codes has no good scale or zero point" : nullptr;
}

bool Checker::check_quantization(const tflite::Tensor &tensor) const {
    const auto *quantization = tensor.quantization();
    if (quantization == nullptr || count(quantization->scale()) == 0 ||
        count(quantization->scale()) != count(quantization->zero_point())) {
        return false;
    }
    for (const float scale : *quantization->scale()) {
        if (!(scale >= kMinScale && scale <= kMaxScale)) {  // NaN is neither.
            return false;
        }
    }
    const bool is_constant = stored_bytes(tensor) != 0;
    const bool is_symmetric = is_constant || tensor.type() == tflite::TensorType_INT16;
    for (const int64_t zero_point : *quantization->zero_point()) {
        if (zero_point < -128 || zero_point > 127 || (is_symmetric && zero_point != 0)) {
            return false;
        }
    }
    const uint32_t scales = quantization->scale()->size();
    return scales == 1 || (is_constant && quantization->quantized_dimension() == 0 &&
                           scales == static_cast<uint32_t>(tensor.shape()->Get(0)));
}

const char *Checker::check_operator(const tflite::Operator &op, char *operators, size_t size) {
    if (op.opcode_index() >= count(model_.operator_codes())) {
        return "an operator has no code";
    }
    const tflite::BuiltinOperator code = tflite::GetBuiltinCode(model_.operator_codes()->Get(op.opcode_index()));
    const char *name = name_of(code);
    if (name == nullptr) {
        return "an operator is none of FULLY_CONNECTED, TANH, LOGISTIC, ELU";
    }
    if (count(op.inputs()) == 0 || count(op.outputs()) != 1 || op.inputs()->Get(0) != current_) {
        return "the operators are not one chain";
    }
    const tflite::Tensor *in = tensor(current_);
    const tflite::Tensor *out = tensor(op.outputs()->Get(0));
    if (out == nullptr || out == in || !is_activation(*out)) {
        return "an operator has no output of its own, or one of another width than the input's";
    }
    if (code == tflite::BuiltinOperator_FULLY_CONNECTED) {
        if (const char *words = check_fully_connected(op, *in, *out)) {
            return words;
        }
    } else if (op.inputs()->size() != 1) {
        return "an activation has more than one input";
    } else if (const char *words = check_activation(code, *in, *out)) {
        return words;
    }
    append(operators, size, name);
    tables_ += code == tflite::BuiltinOperator_ELU ? 1 : 0;
    most_activations_ = std::max(most_activations_, bytes_of(*in) + bytes_of(*out));
    current_ = op.outputs()->Get(0);
    return nullptr;
}

const char *Checker::check_activation(tflite::BuiltinOperator code, const tflite::Tensor &in,
                                      const tflite::Tensor &out) const {
    if (!same_shape(in, out)) {
        return "an activation changes the shape";
    }
    if (type_ != tflite::TensorType_INT16) {
        return nullptr;
    }
    if (code == tflite::BuiltinOperator_ELU) {
        return "an ELU of int16, which has no kernel";
    }
    return scale_of(in) > kWideInputScale || scale_of(out) != kWideOutputScale
               ? "a TANH or LOGISTIC of int16 has another scale than its kernel takes"
               : nullptr;
}

const char *Checker::check_fully_connected(const tflite::Operator &op, const tflite::Tensor &in,
                                           const tflite::Tensor &out) {
    const bool is_wide = type_ == tflite::TensorType_INT16;
    const auto *options = op.builtin_options_as_FullyConnectedOptions();
    if (options == nullptr || options->weights_format() != tflite::FullyConnectedOptionsWeightsFormat_DEFAULT) {
        return "a FULLY_CONNECTED has no options, or shuffled weights";
    }
    const uint32_t inputs = op.inputs()->size();
    const tflite::Tensor *weight = inputs == 2 || inputs == 3 ? tensor(op.inputs()->Get(1)) : nullptr;
    if (weight == nullptr || weight->type() != tflite::TensorType_INT8 || stored_bytes(*weight) == 0 ||
        weight->shape()->size() != 2) {
        return "a FULLY_CONNECTED has no constant int8 weights";
    }
    const auto rows = static_cast<uint32_t>(weight->shape()->Get(0));
    const auto columns = static_cast<uint32_t>(weight->shape()->Get(1));
    if (value_count(in) != columns || value_count(out) != rows ||
        static_cast<uint32_t>(out.shape()->Get(out.shape()->size() - 1)) != rows) {
        return "the weights of a FULLY_CONNECTED do not fit its input and output";
    }
    const size_t channels = weight->quantization()->scale()->size();
    if (is_wide && channels != 1) {
        // The kernel would multiply by what nobody has set.
        return "an int16 FULLY_CONNECTED has a weight scale for each output, where its kernel takes one";
    }
    int64_t largest = static_cast<int64_t>(columns) * 128 * (is_wide ? 32768 : 255);
    if (inputs == 3 && op.inputs()->Get(2) != -1) {
        const tflite::Tensor *bias = tensor(op.inputs()->Get(2));
        // The int16 kernel reads whatever bias there is as int64.
        const auto type = is_wide ? tflite::TensorType_INT64 : tflite::TensorType_INT32;
        if (bias == nullptr || bias->type() != type || stored_bytes(*bias) != rows * width_of(*bias)) {
            return "the bias of a FULLY_CONNECTED is not one int32 (of int16 one int64) for each output";
        }
        largest += largest_bias(*bias);
    }
    if (overflows(largest, in, *weight, out)) {
        return "the accumulator of a FULLY_CONNECTED can overflow";
    }
    channels_ += channels;
    most_channels_ = std::max(most_channels_, channels);
    return nullptr;
}

int64_t Checker::largest_bias(const tflite::Tensor &bias) const {
    const flatbuffers::Vector<uint8_t> &data = *model_.buffers()->Get(bias.buffer())->data();
    const auto width = static_cast<uint32_t>(width_of(bias));
    int64_t largest = 0;
    for (uint32_t at = 0; at < data.size(); at += width) {
        const int64_t value = width == 4 ? flatbuffers::ReadScalar<int32_t>(data.data() + at)
                                         : flatbuffers::ReadScalar<int64_t>(data.data() + at);
        // What no kernel takes need not be told exactly, and there is no -INT64_MIN.
        largest = std::max(largest, std::abs(std::max(value, -kWideAccumulator)));
    }
    return std::min(largest, kWideAccumulator);
}

size_t Checker::arena_bound() const {
    // TFLite-Micro's own objects; for each operator its record and parameters, those of its tensors, and what the plan
    // needs; ELU's table; for each channel a multiplier and a shift that stay and, while one operator prepares, two
    // zero points; the two activations that live at a time. That is 1.1 to 1.9 times the least arena that worked on 32
    // bits, for chains of 1 to 41 operators of up to 1024 outputs.
    constexpr size_t kPointers = sizeof(void *) / 4;
    constexpr size_t kBase = 640 * kPointers;
    constexpr size_t kOperator = 288 * kPointers;
    constexpr size_t kTable = 272;
    constexpr size_t kChannel = 8;
    return kBase + graph_->operators()->size() * kOperator + tables_ * kTable +
           (channels_ + most_channels_) * kChannel + most_activations_ + 64;
}

}  // namespace

CheckedModel check_model(policy_core::Bytes bytes, char *operators, size_t size) {
    operators[0] = '\0';
    CheckedModel checked;
    flatbuffers::Verifier verifier(bytes.data, bytes.size);
    if (bytes.data == nullptr || !tflite::VerifyModelBuffer(verifier)) {
        checked.words = "not a TFLite model, or a damaged one";
        return checked;
    }
    checked.model = tflite::GetModel(bytes.data);
    Checker checker(*checked.model);
    checked.words = checker.run(operators, size);
    if (checked.words == nullptr) {
        checked.arena_bound = checker.arena_bound();
    }
    return checked;
}

}  // namespace tflm_engine
