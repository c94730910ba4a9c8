// The firmware's core with a Python engine, a byte queue for a line and a model for a clock.
//
// Every call is short, never waits, and spends nearly all its time in the engine, which is Python: the GIL stays held.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "policy_core/ports.hpp"
#include "policy_core/protocol.hpp"
#include "policy_core/server.hpp"

namespace nb = nanobind;

namespace {

using policy_core::kParts;
using policy_core::kStages;

/// What the board's world asks for: nothing, or one of the ways a program ends.
enum class Event : uint8_t { kNone, kRestart, kPanic, kHang };

/// Bytes to and from Python. Once the program has ended, nobody hears of what it still does with the bytes it had read.
class QueueLine final : public policy_core::Line {
public:
    explicit QueueLine(const Event &event) : event_(event) {}

    void feed(const uint8_t *data, size_t size) {
        incoming_ = {data, size};
    }

    bool empty() const {
        return incoming_.size == 0;
    }

    std::string take() {
        std::string out;
        out.swap(outgoing_);
        return out;
    }

    size_t read(uint8_t *into, size_t capacity) override {
        const size_t size = std::min(capacity, incoming_.size);
        if (size != 0) {
            std::memcpy(into, incoming_.data, size);
            incoming_ = {incoming_.data + size, incoming_.size - size};
        }
        return size;
    }

    void write(const uint8_t *data, size_t size) override {
        if (event_ == Event::kNone) {
            outgoing_.append(reinterpret_cast<const char *>(data), size);
        }
    }

private:
    const Event &event_;
    policy_core::Bytes incoming_;
    std::string outgoing_;
};

/// Advances by what each stage and each Invoke would cost a chip; see quant.boards.virtual.time_model.
class ModelClock final : public policy_core::Clock {
public:
    ModelClock(uint32_t ticks_per_second, std::array<uint32_t, kStages> costs)
        : ticks_per_second_(ticks_per_second), costs_(costs) {}

    void advance(uint32_t ticks) {
        ticks_ += ticks;
    }

    uint32_t ticks() override {
        return ticks_;
    }

    uint32_t ticks_per_second() const override {
        return ticks_per_second_;
    }

    void account(policy_core::Stage stage, uint32_t elements) override {
        const auto index = static_cast<size_t>(stage);
        if (index < costs_.size()) {
            ticks_ += costs_[index] * elements;
        }
    }

private:
    uint32_t ticks_per_second_;
    std::array<uint32_t, kStages> costs_;
    uint32_t ticks_ = 0;
};

/// The models partition: erased flash with the pack at its start.
class AlignedModels final : public policy_core::Models {
public:
    AlignedModels(const nb::bytes &pack, size_t capacity) : size_(capacity) {
        if (pack.size() > capacity) {
            throw std::invalid_argument("the pack is larger than the partition");
        }
        memory_.reset(static_cast<uint8_t *>(::operator new(capacity, kAlignment)));
        std::memset(memory_.get(), 0xFF, capacity);
        std::memcpy(memory_.get(), pack.c_str(), pack.size());
    }

    policy_core::Bytes partition() override {
        return {memory_.get(), size_};
    }

private:
    static constexpr std::align_val_t kAlignment{policy_core::kPackAlignment};
    struct Free {
        void operator()(uint8_t *memory) const {
            ::operator delete(memory, kAlignment);
        }
    };

    std::unique_ptr<uint8_t, Free> memory_;
    size_t size_;
};

/// The Python object that runs the sub-models: quant.boards.virtual.firmware.EnginePort.
class PythonEngine final : public policy_core::Engine {
public:
    PythonEngine(nb::object engine, ModelClock &clock)
        : engine_(std::move(engine)),
          invoke_(engine_.attr("invoke")),
          version_(nb::cast<std::string>(engine_.attr("version"))),
          clock_(clock) {}

    const char *load(size_t slot, policy_core::PartCode part, policy_core::Bytes model,
                     policy_core::ModelInfo *info) override {
        Slot &held = slots_.at(slot).at(index(part));
        try {
            const nb::object loaded =
                engine_.attr("load")(slot, index(part), nb::bytes(reinterpret_cast<const char *>(model.data), model.size));
            if (nb::isinstance<nb::str>(loaded)) {
                held.words = nb::cast<std::string>(loaded);
                return held.words.c_str();
            }
            held.words = nb::cast<std::string>(loaded.attr("operators"));
            held.instructions = nb::cast<uint32_t>(loaded.attr("instructions"));
            info->input = tensor(loaded.attr("input"));
            info->output = tensor(loaded.attr("output"));
            held.input_bytes = bytes_of(info->input);
            held.output_bytes = bytes_of(info->output);
            // What the host's arena holds says nothing of a chip's.
            info->arena_used = policy_core::kNotAvailable;
            info->arena_size = policy_core::kNotAvailable;
            info->operators = held.words.c_str();
            return nullptr;
        } catch (nb::python_error &error) {
            keep(error);
            return "the engine raised an exception";
        }
    }

    bool invoke(size_t slot, policy_core::PartCode part, const void *input, void *output) override {
        const Slot &held = slots_.at(slot).at(index(part));
        clock_.advance(held.instructions);
        try {
            const nb::object result = invoke_(slot, index(part), nb::bytes(input, held.input_bytes));
            const auto bytes = nb::cast<nb::bytes>(result);
            if (bytes.size() != held.output_bytes) {
                return false;
            }
            std::memcpy(output, bytes.c_str(), held.output_bytes);
            return true;
        } catch (nb::python_error &error) {
            keep(error);
            return false;
        }
    }

    const char *version() const override {
        return version_.c_str();
    }

    const char *kernels_version() const override {
        return "";
    }

    /// The core knows no exceptions, so they pass it by and come up where Python called it.
    void raise_pending() {
        if (error_) {
            nb::python_error error = std::move(*error_);
            error_.reset();
            throw error;
        }
    }

private:
    struct Slot {
        std::string words;
        size_t input_bytes = 0;
        size_t output_bytes = 0;
        uint32_t instructions = 0;
    };

    static policy_core::TensorInfo tensor(const nb::object &loaded) {
        return {nb::cast<uint16_t>(loaded.attr("size")), nb::cast<uint8_t>(loaded.attr("bits")),
                nb::cast<float>(loaded.attr("scale")), nb::cast<int32_t>(loaded.attr("zero_point"))};
    }

    static size_t bytes_of(const policy_core::TensorInfo &tensor) {
        return tensor.size * size_t{tensor.bits} / 8;
    }

    static size_t index(policy_core::PartCode part) {
        return static_cast<size_t>(part);
    }

    void keep(nb::python_error &error) {
        if (!error_) {
            error_.emplace(std::move(error));
        }
    }

    nb::object engine_;
    nb::object invoke_;
    std::string version_;
    ModelClock &clock_;
    std::array<std::array<Slot, kParts>, policy_core::kMaxSlots> slots_;
    std::optional<nb::python_error> error_;
};

/// Says who the board is, and takes down how its program ended.
class VirtualSystem final : public policy_core::System {
public:
    VirtualSystem(const nb::object &identity, uint32_t partition_bytes, Event &event)
        : partition_bytes_(partition_bytes), event_(event), start_(std::chrono::steady_clock::now()) {
        const auto words = [&](const char *name) -> const char * {
            words_.push_back(std::make_unique<std::string>(nb::cast<std::string>(identity.attr(name))));
            return words_.back()->c_str();
        };
        identity_.evidence = policy_core::EvidenceCode::kSimulated;
        identity_.capabilities = nb::cast<uint32_t>(identity.attr("capabilities"));
        identity_.rx_buffer = nb::cast<uint32_t>(identity.attr("rx_buffer"));
        identity_.cpu_mhz = nb::cast<uint16_t>(identity.attr("cpu_mhz"));
        identity_.cores = 1;
        copy(identity.attr("mac"), identity_.mac);
        copy(identity.attr("elf_sha256"), identity_.elf_sha256);
        identity_.firmware_version = words("firmware_version");
        identity_.chip = words("chip");
        identity_.target = words("target");
        identity_.reset_reason = words("reset_reason");
    }

    const policy_core::Identity &identity() const override {
        return identity_;
    }

    void stats(policy_core::SystemStats *into) override {
        const auto up = std::chrono::steady_clock::now() - start_;
        into->uptime_ms = static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(up).count());
        into->models_partition = partition_bytes_;
        into->temperature = std::nanf("");
    }

    void restart() override {
        end(Event::kRestart);
    }

    bool fault(policy_core::FaultKind kind) override {
        if (kind == policy_core::FaultKind::kPanic) {
            end(Event::kPanic);
            return true;
        }
        if (kind == policy_core::FaultKind::kHang) {
            end(Event::kHang);
            return true;
        }
        return false;
    }

    void alive() override {}

private:
    void end(Event event) {
        if (event_ == Event::kNone) {
            event_ = event;
        }
    }

    template <size_t N>
    static void copy(const nb::object &value, uint8_t (&into)[N]) {
        const auto bytes = nb::cast<nb::bytes>(value);
        if (bytes.size() != N) {
            throw std::invalid_argument("a MAC has 6 bytes and a SHA-256 has 32");
        }
        std::memcpy(into, bytes.c_str(), N);
    }

    std::vector<std::unique_ptr<std::string>> words_;
    policy_core::Identity identity_;
    uint32_t partition_bytes_;
    Event &event_;
    std::chrono::steady_clock::time_point start_;
};

/// One life of the board's program, from boot to restart, panic or hang.
class Core {
public:
    Core(const nb::bytes &pack, size_t partition_bytes, nb::object engine, const nb::object &identity,
         uint32_t ticks_per_second, std::array<uint32_t, kStages> costs)
        : line_(event_),
          clock_(ticks_per_second, costs),
          models_(pack, partition_bytes),
          engine_(std::move(engine), clock_),
          system_(identity, static_cast<uint32_t>(partition_bytes), event_),
          server_(line_, clock_, models_, engine_, system_) {
        server_.boot();
        engine_.raise_pending();
    }

    Core(const Core &) = delete;
    Core &operator=(const Core &) = delete;

    nb::bytes feed(const nb::bytes &data) {
        line_.feed(reinterpret_cast<const uint8_t *>(data.c_str()), data.size());
        while (!line_.empty()) {
            server_.poll();
        }
        engine_.raise_pending();
        const std::string out = line_.take();
        return nb::bytes(out.data(), out.size());
    }

    const char *event() const {
        switch (event_) {
            case Event::kRestart:
                return "restart";
            case Event::kPanic:
                return "panic";
            case Event::kHang:
                return "hang";
            case Event::kNone:
                break;
        }
        return "";
    }

    int pack_status() const {
        return static_cast<int>(server_.pack_status());
    }

    size_t slots() const {
        return server_.slot_count();
    }

private:
    Event event_ = Event::kNone;
    QueueLine line_;
    ModelClock clock_;
    AlignedModels models_;
    PythonEngine engine_;
    VirtualSystem system_;
    policy_core::Server server_;
};

}  // namespace

NB_MODULE(_virtual_board, module) {
    module.doc() = "The firmware's policy_core, compiled for the host.";
    nb::class_<Core>(module, "Core")
        .def(nb::init<const nb::bytes &, size_t, nb::object, const nb::object &, uint32_t, std::array<uint32_t, kStages>>(),
             nb::arg("pack"), nb::arg("partition_bytes"), nb::arg("engine"), nb::arg("identity"),
             nb::arg("ticks_per_second"), nb::arg("costs"))
        .def("feed", &Core::feed, nb::arg("data"))
        .def_prop_ro("event", &Core::event)
        .def_prop_ro("pack_status", &Core::pack_status)
        .def_prop_ro("slots", &Core::slots);
}
