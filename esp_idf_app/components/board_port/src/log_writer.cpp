#include "log_writer.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "esp_log.h"

namespace board_port {
namespace {

constexpr size_t kMessage = 256;

policy_core::Line *log_line = nullptr;

int write_message(const char *format, va_list arguments) {
    char message[kMessage];
    const int length = std::vsnprintf(message, sizeof message, format, arguments);
    if (length > 0) {
        const size_t size = std::min(static_cast<size_t>(length), sizeof message - 1);
        log_line->write(reinterpret_cast<const uint8_t *>(message), size);
    }
    return length;
}

}  // namespace

void log_through(policy_core::Line &line) {
    log_line = &line;
    esp_log_set_vprintf(write_message);
}

}  // namespace board_port
