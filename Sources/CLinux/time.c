#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_time.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>
#include <time.h>

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t linux_monotonic_ns(void)
{
	return nanoseconds(CLOCK_MONOTONIC);
}

uint64_t linux_realtime_ns(void)
{
	return nanoseconds(CLOCK_REALTIME);
}

uint64_t linux_random64(void)
{
	uint64_t value = 0;

	/* Up to 256 bytes are returned as a whole; after boot, the call blocks until the kernel's pool is initialised. */
	while (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value) && errno == EINTR)
		;
	return value;
}
