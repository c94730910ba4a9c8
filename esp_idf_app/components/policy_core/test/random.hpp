// Numbers that look random and are the same everywhere: splitmix64 (Steele, Lea and Flood, 2014).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t next() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    /// 0 to n - 1.
    size_t below(size_t n) { return static_cast<size_t>(next() % n); }
    bool one_in(size_t n) { return below(n) == 0; }
    uint8_t byte() { return static_cast<uint8_t>(next()); }
    template <typename T>
    T pick(std::initializer_list<T> values) {
        return values.begin()[below(values.size())];
    }

private:
    uint64_t state_;
};
