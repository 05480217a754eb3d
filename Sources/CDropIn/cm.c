#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <rdma_sysfs.h>

/* The calls of rdma_sysfs.h for rdma_cm, with this thread marked while it is in the library. */

DROPIN_EXPORT bool swift_rdma_cm_serves(void)
{
	const bool before = dropin_set_busy(true);
	const bool serves = dropin_cm_serves();

	dropin_set_busy(before);
	return serves;
}

DROPIN_EXPORT int swift_rdma_cm_open(int flags)
{
	const bool before = dropin_set_busy(true);
	const int descriptor = dropin_cm_open(flags);

	dropin_set_busy(before);
	return descriptor;
}

DROPIN_EXPORT int swift_rdma_cm_write(int descriptor, const void *bytes, size_t length)
{
	const bool before = dropin_set_busy(true);
	const int error = dropin_cm_write(descriptor, bytes, length);

	dropin_set_busy(before);
	return -error;
}

DROPIN_EXPORT void swift_rdma_cm_close(int descriptor)
{
	const bool before = dropin_set_busy(true);

	dropin_cm_close(descriptor);
	dropin_set_busy(before);
}
