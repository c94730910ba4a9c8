// The line over the chip's own USB serial port.
#pragma once

#include "shared_line.hpp"

namespace board_port {

class UsbSerialJtagLine final : public SharedLine {
public:
    /// Stops the program if the driver cannot be had.
    UsbSerialJtagLine();

    size_t read(uint8_t *into, size_t capacity) override;
    void flush() override;

protected:
    /// Drops what a host that went away, or does not read, has not taken for a second.
    void put(const uint8_t *data, size_t size) override;
};

}  // namespace board_port
