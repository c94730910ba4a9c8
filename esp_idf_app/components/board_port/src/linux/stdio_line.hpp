// The line over standard input and output: a pseudo-terminal, or pipes.
#pragma once

#include "shared_line.hpp"

namespace board_port {

class StdioLine final : public SharedLine {
public:
    /// Makes a terminal raw: every byte goes through as it is.
    StdioLine();

    /// Ends the program when the host has closed the line.
    size_t read(uint8_t *into, size_t capacity) override;
    void flush() override;

protected:
    void put(const uint8_t *data, size_t size) override;
};

}  // namespace board_port
