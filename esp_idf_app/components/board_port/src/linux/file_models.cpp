#include "linux/file_models.hpp"

#include <cstdlib>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "esp_log.h"
#include "linux/mapped_file.hpp"

namespace board_port {

policy_core::Bytes map_file(const char *path) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return {};
    }
    policy_core::Bytes mapped;
    struct stat status;
    if (::fstat(file, &status) == 0 && status.st_size > 0) {
        const auto size = static_cast<size_t>(status.st_size);
        void *data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
        if (data != MAP_FAILED) {
            mapped = {static_cast<const uint8_t *>(data), size};
        }
    }
    ::close(file);
    return mapped;
}

FileModels::FileModels() {
    const char *path = std::getenv("QUANT_MODELS");
    if (path == nullptr) {
        return;
    }
    mapped_ = map_file(path);
    if (mapped_.size == 0) {
        ESP_LOGE("models", "cannot read %s", path);
    }
}

}  // namespace board_port
