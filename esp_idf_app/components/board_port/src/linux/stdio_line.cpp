#include "linux/stdio_line.hpp"

#include <cerrno>

#include <poll.h>
#include <termios.h>
#include <unistd.h>

namespace board_port {
namespace {

constexpr int kWaitMs = 10;

void make_raw(int file) {
    termios settings;
    if (::tcgetattr(file, &settings) == 0) {
        ::cfmakeraw(&settings);
        ::tcsetattr(file, TCSANOW, &settings);
    }
}

/// FreeRTOS's tick is a signal, which interrupts every call that waits.
bool try_again() { return errno == EINTR || errno == EAGAIN; }

[[noreturn]] void end() { ::_exit(0); }

}  // namespace

StdioLine::StdioLine() {
    make_raw(STDIN_FILENO);
    make_raw(STDOUT_FILENO);
}

size_t StdioLine::read(uint8_t *into, size_t capacity) {
    pollfd waiting = {STDIN_FILENO, POLLIN, 0};
    if (::poll(&waiting, 1, kWaitMs) <= 0) {
        return 0;
    }
    const ssize_t size = ::read(STDIN_FILENO, into, capacity);
    if (size == 0 || (size < 0 && !try_again())) {
        end();
    }
    return size < 0 ? 0 : static_cast<size_t>(size);
}

void StdioLine::put(const uint8_t *data, size_t size) {
    while (size > 0) {
        const ssize_t written = ::write(STDOUT_FILENO, data, size);
        if (written < 0 && !try_again()) {
            end();
        }
        if (written > 0) {
            data += written;
            size -= static_cast<size_t>(written);
        }
    }
}

void StdioLine::flush() {}

}  // namespace board_port
