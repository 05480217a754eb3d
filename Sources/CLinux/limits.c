#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_limits.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// user_namespaces(7): in the initial namespace every user ID maps to itself. If the map cannot be read, as without
// /proc, the namespace counts as the initial one.
static bool in_initial_user_namespace(void)
{
	FILE *file = fopen("/proc/self/uid_map", "re");
	unsigned long inside = 0, outside = 0, count = 4294967295;

	if (!file)
		return true;
	if (fscanf(file, "%lu %lu %lu", &inside, &outside, &count) != 3)
		count = 0;
	fclose(file);
	return inside == 0 && outside == 0 && count == 4294967295;
}

// The kernel requires CAP_IPC_LOCK in the initial user namespace (ib_umem_get).
static bool may_pin_without_limit(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_IPC_LOCK & 1) &&
	       in_initial_user_namespace();
}

static uint64_t limit_of(int resource)
{
	struct rlimit limit;

	return getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

uint64_t linux_memlock_limit(void)
{
	return may_pin_without_limit() ? UINT64_MAX : limit_of(RLIMIT_MEMLOCK);
}

uint64_t linux_descriptor_limit(void)
{
	return limit_of(RLIMIT_NOFILE);
}
