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

/* Marks this thread. Returns 0, or a negative errno value where the thread may not enter. */
static int enter(void)
{
	if (linux_is_forked_child())
		return -EPERM;
	if (dropin_is_busy)
		return -EBUSY;
	dropin_is_busy = true;
	return 0;
}

/* Takes the mark away, and passes the answer of the library on. */
static int leave(int answer)
{
	dropin_is_busy = false;
	return answer;
}

DROPIN_EXPORT bool swift_rdma_cm_serves(void)
{
	return enter() == 0 && leave(dropin_cm_serves());
}

DROPIN_EXPORT int swift_rdma_cm_open(int flags)
{
	int error = enter();

	return error ? error : leave(dropin_cm_open(flags));
}

DROPIN_EXPORT int swift_rdma_cm_write(int file, const void *bytes, size_t length)
{
	int error = enter();

	return error ? error : leave(-dropin_cm_write(file, bytes, length));
}

DROPIN_EXPORT int swift_rdma_cm_close(int file)
{
	int error = enter();

	if (error)
		return error;
	dropin_cm_close(file);
	return leave(0);
}

/* Takes no lock: the others do not disturb it. */
DROPIN_EXPORT int swift_rdma_cm_own(unsigned first, unsigned last)
{
	return dropin_cm_own(first, last);
}
