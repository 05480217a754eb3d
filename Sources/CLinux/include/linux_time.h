// Clocks and randomness.
#ifndef SWIFT_RDMA_LINUX_TIME_H
#define SWIFT_RDMA_LINUX_TIME_H

#include <stdint.h>

/// CLOCK_MONOTONIC in nanoseconds.
uint64_t linux_monotonic_ns(void);

/// CLOCK_REALTIME in nanoseconds since 1970.
uint64_t linux_realtime_ns(void);

/// 64 random bits from getrandom(2), suitable for keys.
uint64_t linux_random64(void);

#endif
