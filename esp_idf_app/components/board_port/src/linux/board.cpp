#include "board_port/board.hpp"

#include "linux/file_models.hpp"
#include "linux/linux_clock.hpp"
#include "linux/linux_system.hpp"
#include "linux/stdio_line.hpp"
#include "log_writer.hpp"

namespace board_port {

Board open() {
    static StdioLine line;
    log_through(line);
    static LinuxClock clock;
    static FileModels models;
    static LinuxSystem system(static_cast<uint32_t>(models.partition().size));
    return {line, clock, models, system};
}

}  // namespace board_port
