#include "chip/mapped_models.hpp"

#include "esp_err.h"
#include "esp_log.h"
#include "esp_partition.h"

namespace board_port {
namespace {

constexpr const char *kTag = "models";
/// Of partitions.csv.
constexpr const char *kLabel = "models";
constexpr auto kType = static_cast<esp_partition_type_t>(0x40);

}  // namespace

MappedModels::MappedModels() {
    const esp_partition_t *partition = esp_partition_find_first(kType, ESP_PARTITION_SUBTYPE_ANY, kLabel);
    if (partition == nullptr) {
        ESP_LOGE(kTag, "no partition \"%s\" of type 0x40", kLabel);
        return;
    }
    const void *data = nullptr;
    esp_partition_mmap_handle_t handle = 0;
    const esp_err_t error = esp_partition_mmap(partition, 0, partition->size, ESP_PARTITION_MMAP_DATA, &data, &handle);
    if (error != ESP_OK) {
        ESP_LOGE(kTag, "cannot map the partition: %s", esp_err_to_name(error));
        return;
    }
    mapped_ = {static_cast<const uint8_t *>(data), partition->size};
}

}  // namespace board_port
