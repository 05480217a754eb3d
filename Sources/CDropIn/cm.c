#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <rdma_sysfs.h>

/*
 * The calls of rdma_sysfs.h for rdma_cm, with this thread marked while it is in the library. As in swift_rdma_sysfs: a
 * signal handler that interrupts the thread there would wait for locks that it holds, and in a child of fork(2) locks may
 * be held for ever.
 */

DROPIN_EXPORT bool swift_rdma_cm_serves(void)
{
	bool serves;

	if (dropin_is_busy || linux_is_forked_child())
		return false;
	dropin_is_busy = true;
	serves = dropin_cm_serves();
	dropin_is_busy = false;
	return serves;
}

DROPIN_EXPORT int swift_rdma_cm_open(int flags)
{
	int file;

	if (linux_is_forked_child())
		return -EPERM;
	if (dropin_is_busy)
		return -EBUSY;
	dropin_is_busy = true;
	file = dropin_cm_open(flags);
	dropin_is_busy = false;
	return file;
}

DROPIN_EXPORT int swift_rdma_cm_write(int file, const void *bytes, size_t length)
{
	int error;

	if (linux_is_forked_child())
		return -EPERM;
	if (dropin_is_busy)
		return -EBUSY;
	dropin_is_busy = true;
	error = dropin_cm_write(file, bytes, length);
	dropin_is_busy = false;
	return -error;
}

DROPIN_EXPORT int swift_rdma_cm_close(int file)
{
	if (linux_is_forked_child())
		return -EPERM;
	if (dropin_is_busy)
		return -EBUSY;
	dropin_is_busy = true;
	dropin_cm_close(file);
	dropin_is_busy = false;
	return 0;
}

/* Takes no lock: the others do not disturb it. */
DROPIN_EXPORT int swift_rdma_cm_own(unsigned first, unsigned last)
{
	return dropin_cm_own(first, last);
}
