#include "board_port/board.hpp"

#include "chip/chip_system.hpp"
#include "chip/cycle_clock.hpp"
#include "chip/mapped_models.hpp"
#include "chip/uart_line.hpp"
#include "chip/usb_serial_jtag_line.hpp"
#include "log_writer.hpp"
#include "sdkconfig.h"

namespace board_port {

Board open() {
#if CONFIG_QUANT_LINE_USB_SERIAL_JTAG
    static UsbSerialJtagLine line;
#else
    static UartLine line;
#endif
    log_through(line);
    static CycleClock clock;
    static MappedModels models;
    static ChipSystem system(line, static_cast<uint32_t>(models.partition().size));
    return {line, clock, models, system};
}

}  // namespace board_port
