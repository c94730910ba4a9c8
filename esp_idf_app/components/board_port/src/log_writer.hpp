// Sends ESP-IDF's log through the line, so that none of it lands inside a frame.
#pragma once

#include "policy_core/ports.hpp"

namespace board_port {

/// From here on the log is written to `line`, a message a write; a message of more than 255 bytes is cut.
void log_through(policy_core::Line &line);

}  // namespace board_port
