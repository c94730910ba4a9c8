#include "chip/uart_line.hpp"

#include "sdkconfig.h"

#if CONFIG_QUANT_LINE_UART

#include "driver/uart.h"
#include "driver/uart_vfs.h"
#include "esp_err.h"

namespace board_port {
namespace {

#if CONFIG_ESP_CONSOLE_UART
constexpr uart_port_t kPort = static_cast<uart_port_t>(CONFIG_ESP_CONSOLE_UART_NUM);
#else
constexpr uart_port_t kPort = UART_NUM_0;
#endif
/// More than the longest frame, so that a reply goes out while the next request is worked on.
constexpr int kTxBuffer = 4096;
/// Of the FIFO's 128 bytes: at 921600 baud the other half is 0.7 ms, the longest that interrupts may be held off.
constexpr int kRxThreshold = 64;
/// Symbols of silence after which a short request is handed on.
constexpr uint8_t kRxTimeout = 2;

}  // namespace

UartLine::UartLine() {
    uart_config_t config = {};
    config.baud_rate = CONFIG_QUANT_UART_BAUD;
    config.data_bits = UART_DATA_8_BITS;
    config.parity = UART_PARITY_DISABLE;
    config.stop_bits = UART_STOP_BITS_1;
    config.flow_ctrl = UART_HW_FLOWCTRL_DISABLE;
    config.source_clk = UART_SCLK_DEFAULT;
#if CONFIG_ESP_CONSOLE_UART
    uart_wait_tx_idle_polling(kPort);  // The boot log is still on its way out.
#endif
    ESP_ERROR_CHECK(uart_driver_install(kPort, CONFIG_QUANT_UART_RX_BUFFER, kTxBuffer, 0, nullptr, 0));
    ESP_ERROR_CHECK(uart_param_config(kPort, &config));
    ESP_ERROR_CHECK(uart_set_rx_full_threshold(kPort, kRxThreshold));
    ESP_ERROR_CHECK(uart_set_rx_timeout(kPort, kRxTimeout));
#if CONFIG_ESP_CONSOLE_UART
    uart_vfs_dev_use_driver(kPort);  // Whatever prints past the log must queue behind a frame, not go into it.
#endif
}

size_t UartLine::read(uint8_t *into, size_t capacity) {
    // The driver waits until it has as many bytes as it was asked for: wait for one, then take what is there.
    if (capacity == 0 || uart_read_bytes(kPort, into, 1, pdMS_TO_TICKS(10)) != 1) {
        return 0;
    }
    const int more = uart_read_bytes(kPort, into + 1, static_cast<uint32_t>(capacity - 1), 0);
    return 1 + static_cast<size_t>(more > 0 ? more : 0);
}

void UartLine::put(const uint8_t *data, size_t size) { uart_write_bytes(kPort, data, size); }

void UartLine::flush() { uart_wait_tx_done(kPort, pdMS_TO_TICKS(1000)); }

}  // namespace board_port

#endif  // CONFIG_QUANT_LINE_UART
