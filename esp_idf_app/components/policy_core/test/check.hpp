// The little a test needs: a check that says where it failed, and goes on.
#pragma once

#include <cstdio>

inline int failures = 0;

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            ++failures;                                                                \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                              \
    } while (false)

inline int outcome() {
    std::fprintf(stderr, failures == 0 ? "all is well\n" : "%d checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
