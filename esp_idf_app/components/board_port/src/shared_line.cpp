#include "shared_line.hpp"

namespace board_port {

SharedLine::SharedLine() : mutex_(xSemaphoreCreateMutexStatic(&storage_)) {}

void SharedLine::write(const uint8_t *data, size_t size) {
    xSemaphoreTake(mutex_, portMAX_DELAY);
    put(data, size);
    xSemaphoreGive(mutex_);
}

}  // namespace board_port
