// What the image says of itself, on a chip as in a process.
#pragma once

#include "esp_app_desc.h"
#include "policy_core/ports.hpp"
#include "sdkconfig.h"

namespace board_port {

/// An identity with the image's versions, the chip and target it was built for, and the buffer of its line.
inline policy_core::Identity image_identity() {
    const esp_app_desc_t *app = esp_app_get_description();
    policy_core::Identity identity;
    identity.rx_buffer = CONFIG_QUANT_UART_RX_BUFFER;
    identity.firmware_version = app->version;
    identity.chip = CONFIG_IDF_TARGET;  // The bootloader refuses an image for another chip.
    identity.target = CONFIG_IDF_TARGET;
    identity.idf_version = app->idf_ver;
    return identity;
}

}  // namespace board_port
