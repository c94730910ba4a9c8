// Ports with known behaviour: vectors.txt describes them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "policy_core/bytes.hpp"
#include "policy_core/pack.hpp"
#include "policy_core/ports.hpp"

namespace fakes {

using Buffer = std::vector<uint8_t>;

/// Gives what is in `in`, at most `portion` bytes a read, and keeps what is written.
class Line final : public policy_core::Line {
public:
    size_t read(uint8_t *into, size_t capacity) override {
        const size_t size = std::min({capacity, portion, in.size() - taken});
        std::copy_n(in.begin() + static_cast<std::ptrdiff_t>(taken), size, into);
        taken += size;
        return size;
    }
    void write(const uint8_t *data, size_t size) override { out.insert(out.end(), data, data + size); }

    bool empty() const { return taken == in.size(); }
    void feed(const Buffer &bytes) {
        in = bytes;
        taken = 0;
        out.clear();
    }

    Buffer in;
    Buffer out;
    size_t taken = 0;
    size_t portion = SIZE_MAX;
};

class Clock final : public policy_core::Clock {
public:
    uint32_t ticks() override {
        const uint32_t value = now;
        now += 5 + value % 7;
        return value;
    }
    uint32_t ticks_per_second() const override { return 1000000; }
    void account(policy_core::Stage stage, uint32_t elements) override {
        now += (static_cast<uint32_t>(stage) + 1) * elements;
    }

    uint32_t now = 0xFFFFFF00u;
};

/// A partition with exactly the pack's bytes: AddressSanitizer sees one byte read beyond them.
class Models final : public policy_core::Models {
public:
    explicit Models(const Buffer &pack) : size_(pack.size()) {
        void *memory = nullptr;
        if (size_ > 0 && posix_memalign(&memory, policy_core::kPackAlignment, size_) == 0) {
            data_ = static_cast<uint8_t *>(memory);
            std::copy(pack.begin(), pack.end(), data_);
        }
    }
    Models(const Models &) = delete;
    Models &operator=(const Models &) = delete;
    ~Models() { std::free(data_); }

    policy_core::Bytes partition() override { return {data_, size_}; }

private:
    uint8_t *data_ = nullptr;
    size_t size_;
};

class Engine final : public policy_core::Engine {
public:
    const char *load(size_t slot, policy_core::PartCode part, policy_core::Bytes model,
                     policy_core::ModelInfo *info) override {
        constexpr size_t kSize = 25;
        if (model.size != kSize || std::memcmp(model.data, "FAKE", 4) != 0) {
            return "not a fake model";
        }
        const uint8_t *at = model.data + 8;
        const uint8_t bits = model.data[24];
        info->input = {policy_core::load_u16(model.data + 4), bits, policy_core::load_f32(at),
                       policy_core::load_i32(at + 4)};
        info->output = {policy_core::load_u16(model.data + 6), bits, policy_core::load_f32(at + 8),
                        policy_core::load_i32(at + 12)};
        info->arena_used = 100u + info->input.size;
        info->arena_size = 8192;
        info->operators = "FULLY_CONNECTED,TANH";
        loaded_[slot][static_cast<size_t>(part)] = *info;
        return nullptr;
    }
    bool invoke(size_t slot, policy_core::PartCode part, const void *input, void *output) override {
        ++invocations;
        const policy_core::ModelInfo &info = loaded_[slot][static_cast<size_t>(part)];
        return info.input.bits == 8 ? run(info, static_cast<const int8_t *>(input), static_cast<int8_t *>(output))
                                    : run(info, static_cast<const int16_t *>(input), static_cast<int16_t *>(output));
    }
    const char *version() const override { return "fake engine 1"; }
    const char *kernels_version() const override { return ""; }

    size_t invocations = 0;

private:
    template <typename Code>
    static bool run(const policy_core::ModelInfo &info, const Code *input, Code *output) {
        if (input[0] == 99) {
            return false;
        }
        for (int j = 0; j < info.output.size; ++j) {
            int sum = 7 * j;
            for (int i = 0; i < info.input.size; ++i) {
                sum += (i + j + 1) * input[i];
            }
            output[j] = static_cast<Code>(static_cast<std::make_unsigned_t<Code>>(sum));
        }
        return true;
    }

    policy_core::ModelInfo loaded_[policy_core::kMaxSlots][policy_core::kParts];
};

class System final : public policy_core::System {
public:
    System() : long_text_(300, 'x') {
        identity_.capabilities = static_cast<uint32_t>(policy_core::Capability::kTemperature);
        identity_.rx_buffer = 8192;
        identity_.cpu_mhz = 240;
        identity_.cores = 2;
        identity_.chip_revision = 301;
        for (uint8_t i = 0; i < 6; ++i) {
            identity_.mac[i] = static_cast<uint8_t>(2 + i);
        }
        for (uint8_t i = 0; i < 32; ++i) {
            identity_.elf_sha256[i] = i;
        }
        identity_.firmware_version = "1.2.3";
        identity_.chip = "esp32";
        identity_.target = "linux";
        identity_.idf_version = "v5.5";
        identity_.reset_reason = long_text_.c_str();
    }
    void allow_faults() { identity_.capabilities |= static_cast<uint32_t>(policy_core::Capability::kTestFaults); }

    const policy_core::Identity &identity() const override { return identity_; }
    void stats(policy_core::SystemStats *into) override {
        *into = {123000, 200000, 150000, 3000, 400000, policy_core::kNotAvailable, 524288, 41.5f};
    }
    void restart() override {
        written_at_restart = line == nullptr ? 0 : line->out.size();
        calls.emplace_back("restart");
    }
    bool fault(policy_core::FaultKind kind) override {
        calls.push_back("fault " + std::to_string(static_cast<int>(kind)));
        return true;
    }
    void alive() override { ++beats; }

    std::vector<std::string> calls;
    size_t beats = 0;
    const Line *line = nullptr;
    size_t written_at_restart = 0;

private:
    std::string long_text_;
    policy_core::Identity identity_;
};

}  // namespace fakes
