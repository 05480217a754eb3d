#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_time.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
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

#if defined(__x86_64__)
/* Whether the kernel's clock is the time-stamp counter alone, so that it counts evenly and alike on all processors. */
static int counter_is_clock(void)
{
	char name[64] = "";
	FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");

	if (file == NULL)
		return 0;
	if (fgets(name, sizeof(name), file) == NULL)
		name[0] = '\0';
	fclose(file);
	return strcmp(name, "tsc\n") == 0;
}
#endif

void linux_clock_init(struct linux_clock *clock)
{
	memset(clock, 0, sizeof(*clock));
#if defined(__x86_64__)
	/* Half a microsecond at the 2 GHz of a slow counter. */
	clock->span = counter_is_clock() ? 1024 : 0;
#endif
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
