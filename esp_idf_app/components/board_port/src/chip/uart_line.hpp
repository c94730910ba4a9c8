// The line over a UART: interrupt-driven in both directions.
#pragma once

#include "shared_line.hpp"

namespace board_port {

class UartLine final : public SharedLine {
public:
    /// Takes the UART over from the console, at CONFIG_QUANT_UART_BAUD. Stops the program if the driver cannot be had.
    UartLine();

    size_t read(uint8_t *into, size_t capacity) override;
    void flush() override;

protected:
    void put(const uint8_t *data, size_t size) override;
};

}  // namespace board_port
