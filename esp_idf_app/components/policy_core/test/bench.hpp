// A server on fake ports.
#pragma once

#include "fakes.hpp"
#include "policy_core/server.hpp"

/// A board that has just booted with a pack.
struct Bench {
    explicit Bench(const fakes::Buffer &pack, bool faults, size_t portion = SIZE_MAX) : models(pack) {
        line.portion = portion;
        if (faults) {
            system.allow_faults();
        }
        server.boot();
    }

    /// What the board writes when these bytes have come.
    const fakes::Buffer &say(const fakes::Buffer &bytes) {
        line.feed(bytes);
        while (!line.empty()) {
            server.poll();
        }
        return line.out;
    }

    fakes::Line line;
    fakes::Clock clock;
    fakes::Models models;
    fakes::Engine engine;
    fakes::System system;
    policy_core::Server server{line, clock, models, engine, system};
};
