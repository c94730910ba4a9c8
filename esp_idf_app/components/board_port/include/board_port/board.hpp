// policy_core's ports on this board: a chip, or a process of ESP-IDF's linux target.
#pragma once

#include "policy_core/ports.hpp"

namespace board_port {

/// The ports; all live as long as the program.
struct Board {
    policy_core::Line &line;
    policy_core::Clock &clock;
    policy_core::Models &models;
    policy_core::System &system;
};

/// Opens the line, sends the log through it, maps the models and starts the watchdog. Call it once, from the task that
/// will serve: that task is the one watched.
Board open();

}  // namespace board_port
