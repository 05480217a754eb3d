// Clocks and randomness.
#ifndef SWIFT_RDMA_LINUX_TIME_H
#define SWIFT_RDMA_LINUX_TIME_H

#include <stdint.h>

/// CLOCK_MONOTONIC in nanoseconds.
uint64_t linux_monotonic_ns(void);

/// A reading of CLOCK_MONOTONIC that is used again for a short time.
struct linux_clock {
	/// The processor's counter at the last reading, and for how many of its ticks the reading is used.
	uint64_t ticks;
	uint64_t span;
	uint64_t now;
};

/// Prepares a clock, whose first reading is a new one.
void linux_clock_init(struct linux_clock *clock);

/// CLOCK_MONOTONIC in nanoseconds, as it was at most half a microsecond ago: the processor's counter takes half the time of the
/// vDSO. Where the kernel does not keep time by that counter, as `linux_monotonic_ns`.
static inline uint64_t linux_clock_ns(struct linux_clock *clock)
{
#if defined(__x86_64__)
	if (clock->span != 0) {
		uint64_t ticks = __builtin_ia32_rdtsc();

		if (ticks - clock->ticks < clock->span)
			return clock->now;
		clock->ticks = ticks;
	}
#endif
	clock->now = linux_monotonic_ns();
	return clock->now;
}

/// CLOCK_REALTIME in nanoseconds since 1970.
uint64_t linux_realtime_ns(void);

/// 64 random bits from getrandom(2), suitable for keys.
uint64_t linux_random64(void);

#endif
