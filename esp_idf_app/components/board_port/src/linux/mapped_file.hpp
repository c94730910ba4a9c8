// A file, mapped read-only for as long as the program runs.
#pragma once

#include "policy_core/ports.hpp"

namespace board_port {

/// The file's content, aligned to a page; empty if it is empty or cannot be read.
policy_core::Bytes map_file(const char *path);

}  // namespace board_port
