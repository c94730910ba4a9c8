#include "policy_core/crc32.hpp"

namespace policy_core {
namespace {

struct Table {
    uint32_t entry[256] = {};

    constexpr Table() {
        for (uint32_t byte = 0; byte < 256; ++byte) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; ++bit) {
                crc = (crc & 1u) != 0 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
            }
            entry[byte] = crc;
        }
    }
};

constexpr Table kTable;

}  // namespace

uint32_t crc32(const uint8_t *data, size_t size, uint32_t crc) {
    crc = ~crc;
    for (size_t i = 0; i < size; ++i) {
        crc = crc >> 8 ^ kTable.entry[(crc ^ data[i]) & 0xFFu];
    }
    return ~crc;
}

}  // namespace policy_core
