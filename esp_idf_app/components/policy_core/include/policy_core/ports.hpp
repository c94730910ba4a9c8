// What the core needs of the world around it. A chip, the linux target and the virtual board each implement these.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/protocol.hpp"

namespace policy_core {

/// A run of bytes that somebody else owns. `data` may be null where `size` is 0.
struct Bytes {
    const uint8_t *data = nullptr;
    size_t size = 0;
};

/// The line to the host: a stream of bytes in both directions.
class Line {
public:
    /// Waits a short while (at most about 10 ms) for bytes and gives what has come, 0 if nothing has.
    virtual size_t read(uint8_t *into, size_t capacity) = 0;
    /// Writes all of it, waiting where the line is slower. Nothing else may be written in between: log output goes
    /// through the same writer.
    virtual void write(const uint8_t *data, size_t size) = 0;

protected:
    ~Line() = default;
};

/// The clock that times the stages of a decision.
class Clock {
public:
    /// A counter that wraps at 2^32; differences are taken modulo 2^32.
    virtual uint32_t ticks() = 0;
    /// Its rate; constant after boot.
    virtual uint32_t ticks_per_second() const = 0;
    /// Told what a stage has done, for a clock that is a model and not a counter. `elements`: codes made of features, rows
    /// encoded (once for each row), embeddings pooled times their size, 1 for the head, outputs.
    virtual void account(Stage stage, uint32_t elements) {
        (void)stage;
        (void)elements;
    }

protected:
    ~Clock() = default;
};

/// Where the model pack lies.
class Models {
public:
    /// The whole partition or file, 16-byte aligned and readable for as long as the program runs; the pack starts at 0
    /// and may be shorter. Empty where there is none.
    virtual Bytes partition() = 0;

protected:
    ~Models() = default;
};

/// A tensor as the engine sees it.
struct TensorInfo {
    uint16_t size = 0;  ///< Values.
    uint8_t bits = 0;  ///< Of a value: 8 or 16.
    float scale = 0.0f;
    int32_t zero_point = 0;
};

/// A sub-model as the engine sees it.
struct ModelInfo {
    TensorInfo input;
    TensorInfo output;
    uint32_t arena_used = 0;  ///< Bytes.
    uint32_t arena_size = 0;  ///< Bytes.
    const char *operators = "";  ///< Names in their order, comma-separated; owned by the engine.
};

/// Runs sub-models.
class Engine {
public:
    /// Makes a sub-model ready; called once for each slot and part at boot. `model` stays where it is and is 16-byte
    /// aligned. Returns null, or why it can't, in words that live as long as the program.
    virtual const char *load(size_t slot, PartCode part, Bytes model, ModelInfo *info) = 0;
    /// Runs it: `input` and `output` hold as many values as its tensors, of their width. False if the engine fails.
    virtual bool invoke(size_t slot, PartCode part, const void *input, void *output) = 0;
    /// Version of the inference library, and of the kernels beneath it; empty where unknown.
    virtual const char *version() const = 0;
    virtual const char *kernels_version() const = 0;

protected:
    ~Engine() = default;
};

/// Who the board is; constant after boot. Strings live as long as the program.
struct Identity {
    EvidenceCode evidence = EvidenceCode::kComputed;
    uint32_t capabilities = 0;  ///< Bits of Capability.
    uint32_t rx_buffer = 0;  ///< Bytes the host may have under way before it waits for replies.
    uint16_t cpu_mhz = 0;
    uint8_t cores = 0;
    uint8_t mac[6] = {};
    uint16_t chip_revision = 0;  ///< major * 100 + minor.
    uint8_t elf_sha256[32] = {};
    const char *firmware_version = "";
    const char *chip = "";  ///< As esptool calls it, in lower case: esp32, esp32s3.
    const char *target = "";  ///< What the image was built for.
    const char *idf_version = "";
    const char *reset_reason = "";
};

/// Figures that change; kNotAvailable where the board has none.
struct SystemStats {
    uint32_t uptime_ms = 0;
    uint32_t heap_free = kNotAvailable;  ///< Bytes, as the next three.
    uint32_t heap_minimum = kNotAvailable;
    uint32_t stack_left = kNotAvailable;  ///< Least ever, of the task that serves.
    uint32_t app_bytes = kNotAvailable;
    uint32_t app_partition = kNotAvailable;
    uint32_t models_partition = kNotAvailable;
    float temperature = 0.0f;  ///< Degrees Celsius; NaN where there is no sensor.
};

/// The rest of the board.
class System {
public:
    virtual const Identity &identity() const = 0;
    virtual void stats(SystemStats *into) = 0;
    /// Restarts; returns only on boards where a restart is somebody else's business.
    virtual void restart() = 0;
    /// Panics or hangs on purpose (kPanic, kHang). False where this build does not do such things.
    virtual bool fault(FaultKind kind) = 0;
    /// Called between requests and between the repeats of a benchmark: feeds the watchdog.
    virtual void alive() = 0;

protected:
    ~System() = default;
};

}  // namespace policy_core
