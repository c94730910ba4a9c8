// A line that several tasks may write to: what is written in one call stays together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "policy_core/ports.hpp"

namespace board_port {

class SharedLine : public policy_core::Line {
public:
    SharedLine();
    SharedLine(const SharedLine &) = delete;
    SharedLine &operator=(const SharedLine &) = delete;

    void write(const uint8_t *data, size_t size) final;
    /// Waits, at most about a second, until everything written is out.
    virtual void flush() = 0;

protected:
    ~SharedLine() = default;
    /// Writes all of it; one task at a time is in here.
    virtual void put(const uint8_t *data, size_t size) = 0;

private:
    StaticSemaphore_t storage_;
    SemaphoreHandle_t mutex_;
};

}  // namespace board_port
