#include "chip/chip_system.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "esp_app_desc.h"
#include "esp_chip_info.h"
#include "esp_err.h"
#include "esp_image_format.h"
#include "esp_mac.h"
#include "esp_ota_ops.h"
#include "esp_rom_sys.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "image.hpp"

namespace board_port {
namespace {

using policy_core::Capability;
using policy_core::EvidenceCode;
using policy_core::FaultKind;
using policy_core::SystemStats;

const char *reset_words(esp_reset_reason_t reason) {
    switch (reason) {
        case ESP_RST_POWERON:
            return "power on";
        case ESP_RST_EXT:
            return "external pin";
        case ESP_RST_SW:
            return "software";
        case ESP_RST_PANIC:
            return "panic";
        case ESP_RST_INT_WDT:
            return "interrupt watchdog";
        case ESP_RST_TASK_WDT:
            return "task watchdog";
        case ESP_RST_WDT:
            return "other watchdog";
        case ESP_RST_DEEPSLEEP:
            return "deep sleep";
        case ESP_RST_BROWNOUT:
            return "brownout";
        case ESP_RST_SDIO:
            return "SDIO";
        case ESP_RST_USB:
            return "USB";
        case ESP_RST_JTAG:
            return "JTAG";
        case ESP_RST_EFUSE:
            return "efuse error";
        case ESP_RST_PWR_GLITCH:
            return "power glitch";
        case ESP_RST_CPU_LOCKUP:
            return "CPU lockup";
        default:
            return "unknown";
    }
}

constexpr uint32_t capabilities() {
    uint32_t bits = 0;
#if CONFIG_QUANT_TEST_FAULTS
    bits |= static_cast<uint32_t>(Capability::kTestFaults);
#endif
#if SOC_TEMP_SENSOR_SUPPORTED
    bits |= static_cast<uint32_t>(Capability::kTemperature);
#endif
#if CONFIG_ESP_TASK_WDT_INIT
    bits |= static_cast<uint32_t>(Capability::kWatchdog);
#endif
    return bits;
}

}  // namespace

ChipSystem::ChipSystem(SharedLine &line, uint32_t models_partition)
    : line_(line), models_partition_(models_partition) {
    identify();
    measure_app();
    start_temperature();
#if CONFIG_ESP_TASK_WDT_INIT
    ESP_ERROR_CHECK(esp_task_wdt_add(nullptr));
#endif
}

void ChipSystem::identify() {
    esp_chip_info_t chip = {};
    esp_chip_info(&chip);
    const esp_app_desc_t *app = esp_app_get_description();
    identity_ = image_identity();
#if CONFIG_QUANT_EMULATED
    identity_.evidence = EvidenceCode::kEmulated;
#else
    identity_.evidence = EvidenceCode::kMeasured;
#endif
    identity_.capabilities = capabilities();
    identity_.cpu_mhz = static_cast<uint16_t>(esp_rom_get_cpu_ticks_per_us());
    // The cores that run tasks, which can be fewer than the chip has.
    identity_.cores = static_cast<uint8_t>(portNUM_PROCESSORS);
    if (esp_efuse_mac_get_default(identity_.mac) != ESP_OK) {
        std::memset(identity_.mac, 0, sizeof identity_.mac);  // An emulator's blank fuses.
    }
    identity_.chip_revision = chip.revision;
    static_assert(sizeof identity_.elf_sha256 == sizeof app->app_elf_sha256);
    std::memcpy(identity_.elf_sha256, app->app_elf_sha256, sizeof identity_.elf_sha256);
    identity_.reset_reason = reset_words(esp_reset_reason());
}

void ChipSystem::measure_app() {
    const esp_partition_t *running = esp_ota_get_running_partition();
    if (running == nullptr) {
        return;
    }
    app_partition_ = running->size;
    const esp_partition_pos_t position = {running->address, running->size};
    esp_image_metadata_t image = {};
    if (esp_image_get_metadata(&position, &image) == ESP_OK) {
        app_bytes_ = image.image_len;
    }
}

void ChipSystem::stats(SystemStats *into) {
    into->uptime_ms = static_cast<uint32_t>(esp_timer_get_time() / 1000);
    into->heap_free = esp_get_free_heap_size();
    into->heap_minimum = esp_get_minimum_free_heap_size();
    into->stack_left = uxTaskGetStackHighWaterMark(nullptr);  // ESP-IDF counts in bytes.
    into->app_bytes = app_bytes_;
    into->app_partition = app_partition_;
    into->models_partition = models_partition_;
    into->temperature = temperature();
}

void ChipSystem::restart() {
    line_.flush();
    esp_restart();
}

bool ChipSystem::fault(FaultKind kind) {
#if CONFIG_QUANT_TEST_FAULTS
    if (kind == FaultKind::kPanic) {
        line_.flush();
        std::abort();
    }
    if (kind == FaultKind::kHang) {
        line_.flush();
        for (;;) {
            asm volatile("");  // Until the watchdog bites.
        }
    }
#else
    (void)kind;
#endif
    return false;
}

void ChipSystem::alive() {
#if CONFIG_ESP_TASK_WDT_INIT
    esp_task_wdt_reset();
#endif
}

#if SOC_TEMP_SENSOR_SUPPORTED

void ChipSystem::start_temperature() {
    temperature_sensor_config_t config = {};
    config.range_min = -10;
    config.range_max = 80;
    config.clk_src = TEMPERATURE_SENSOR_CLK_SRC_DEFAULT;
    if (temperature_sensor_install(&config, &sensor_) != ESP_OK || temperature_sensor_enable(sensor_) != ESP_OK) {
        sensor_ = nullptr;
    }
}

float ChipSystem::temperature() {
    float celsius = NAN;
    if (sensor_ == nullptr || temperature_sensor_get_celsius(sensor_, &celsius) != ESP_OK) {
        return NAN;
    }
    return celsius;
}

#else

void ChipSystem::start_temperature() {}

float ChipSystem::temperature() { return NAN; }

#endif

}  // namespace board_port
