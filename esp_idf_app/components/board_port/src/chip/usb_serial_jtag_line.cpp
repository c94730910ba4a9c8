#include "chip/usb_serial_jtag_line.hpp"

#include "sdkconfig.h"

#if CONFIG_QUANT_LINE_USB_SERIAL_JTAG

#include <algorithm>

#include "driver/usb_serial_jtag.h"
#if CONFIG_ESP_CONSOLE_USB_SERIAL_JTAG
#include "driver/usb_serial_jtag_vfs.h"
#endif
#include "esp_err.h"

namespace board_port {
namespace {

constexpr uint32_t kTxBuffer = 4096;
/// The driver queues a run of bytes whole or not at all.
constexpr size_t kRun = 512;

}  // namespace

UsbSerialJtagLine::UsbSerialJtagLine() {
    usb_serial_jtag_driver_config_t config = {};
    config.tx_buffer_size = kTxBuffer;
    config.rx_buffer_size = CONFIG_QUANT_UART_RX_BUFFER;
    ESP_ERROR_CHECK(usb_serial_jtag_driver_install(&config));
#if CONFIG_ESP_CONSOLE_USB_SERIAL_JTAG
    usb_serial_jtag_vfs_use_driver();  // Whatever prints past the log must queue behind a frame, not go into it.
#endif
}

size_t UsbSerialJtagLine::read(uint8_t *into, size_t capacity) {
    const int size = usb_serial_jtag_read_bytes(into, static_cast<uint32_t>(capacity), pdMS_TO_TICKS(10));
    return size > 0 ? static_cast<size_t>(size) : 0;
}

void UsbSerialJtagLine::put(const uint8_t *data, size_t size) {
    while (size > 0) {
        const size_t run = std::min(size, kRun);
        const TickType_t patience = pdMS_TO_TICKS(usb_serial_jtag_is_connected() ? 1000 : 0);
        if (usb_serial_jtag_write_bytes(data, run, patience) <= 0) {
            return;
        }
        data += run;
        size -= run;
    }
}

void UsbSerialJtagLine::flush() { usb_serial_jtag_wait_tx_done(pdMS_TO_TICKS(1000)); }

}  // namespace board_port

#endif  // CONFIG_QUANT_LINE_USB_SERIAL_JTAG
