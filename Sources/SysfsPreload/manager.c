/*
 * manager.c - /dev/infiniband/rdma_cm, through which librdmacm works: open(2), write(2), fstat(2) and close(2). Commands are
 * passed to libibverbs.so.1 of this package (rdma_sysfs.h). The descriptor is a counter of events (eventfd(2)), for poll(2) and
 * O_NONBLOCK; a copy that dup(2) makes can be polled, not written.
 */
/* These are the functions that the C library would replace by checked ones. */
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "paths.h"

#include <stdint.h>
#include <sys/sysmacros.h>

#include <rdma/rdma_user_cm.h>

/* Which descriptors are open files of the node: a bit each. */
#define MOST_DESCRIPTORS 65536
static uint64_t is_open[MOST_DESCRIPTORS / 64];

static bool is_manager(int file)
{
	return file >= 0 && file < MOST_DESCRIPTORS &&
	       __atomic_load_n(&is_open[file / 64], __ATOMIC_RELAXED) & (uint64_t)1 << file % 64;
}

/* Calls into libibverbs.so.1, whose own paths are the kernel's. */
#define INSIDE(call)                                                                                       \
	({                                                                                                 \
		const bool before = is_inside;                                                             \
		is_inside = true;                                                                          \
		const int answer = (call);                                                                 \
		is_inside = before;                                                                        \
		answer;                                                                                    \
	})

int open_manager(int flags)
{
	const int file = INSIDE(manager_calls.open(flags));

	if (file < 0)
		return fail(-file);
	if (file >= MOST_DESCRIPTORS) {
		INSIDE((manager_calls.close(file), 0));
		NEXT(close)(file);
		return fail(EMFILE);
	}
	__atomic_fetch_or(&is_open[file / 64], (uint64_t)1 << file % 64, __ATOMIC_RELAXED);
	return file;
}

/* The program closes the descriptor, or replaces it. */
static void forget(int file)
{
	const int saved = errno;

	__atomic_fetch_and(&is_open[file / 64], ~((uint64_t)1 << file % 64), __ATOMIC_RELAXED);
	INSIDE((manager_calls.close(file), 0));
	errno = saved;
}

/* librdmacm compares the number of the device with that of the kernel's node, if there is one. */
int manager_status(struct stat64 *status)
{
	struct stat64 node;
	unsigned major = 10, minor = 255;
	FILE *number;

	if (!NEXT(stat64)("/dev/infiniband/rdma_cm", &node)) {
		*status = node;
		return 0;
	}
	number = NEXT(fopen)("/sys/class/misc/rdma_cm/dev", "re");
	if (number) {
		if (fscanf(number, "%u:%u", &major, &minor) != 2)
			(major = 10, minor = 255);
		fclose(number);
	}
	memset(status, 0, sizeof(*status));
	status->st_mode = S_IFCHR | 0666;
	status->st_nlink = 1;
	status->st_rdev = makedev(major, minor);
	status->st_blksize = 4096;
	errno = 0;
	return 0;
}

static ssize_t write_command(int file, const void *bytes, size_t length)
{
	struct rdma_ucm_cmd_hdr header = {};
	bool is_read;
	uint64_t count;
	int error;

	if (length >= sizeof(header))
		memcpy(&header, bytes, sizeof(header));
	is_read = length >= sizeof(header) && header.cmd == RDMA_USER_CM_CMD_GET_EVENT;
	do {
		/* Blocks, fails and is interrupted as the kernel's GET_EVENT. */
		if (is_read && read(file, &count, sizeof(count)) < 0)
			return -1;
		error = INSIDE(manager_calls.write(file, bytes, length));
	} while (error == -EAGAIN);
	/* The event is still there. */
	count = 1;
	if (error && is_read && NEXT(write)(file, &count, sizeof(count)) < 0)
		return -1;
	return error ? fail(-error) : (ssize_t)length;
}

EXPORT ssize_t write(int file, const void *bytes, size_t length)
{
	return is_manager(file) ? write_command(file, bytes, length) : NEXT(write)(file, bytes, length);
}

EXPORT int close(int file)
{
	if (is_manager(file))
		forget(file);
	return NEXT(close)(file);
}

EXPORT int dup2(int from, int to)
{
	if (from != to && is_manager(to))
		forget(to);
	return NEXT(dup2)(from, to);
}

EXPORT int dup3(int from, int to, int flags)
{
	if (from != to && is_manager(to))
		forget(to);
	return NEXT(dup3)(from, to, flags);
}

EXPORT int fstat(int file, struct stat *status)
{
	return is_manager(file) ? manager_status((struct stat64 *)(void *)status) : NEXT(fstat)(file, status);
}

EXPORT int fstat64(int file, struct stat64 *status)
{
	return is_manager(file) ? manager_status(status) : NEXT(fstat64)(file, status);
}

EXPORT int __fxstat(int version, int file, struct stat *status)
{
	return is_manager(file) ? manager_status((struct stat64 *)(void *)status) : NEXT(__fxstat)(version, file, status);
}

EXPORT int __fxstat64(int version, int file, struct stat64 *status)
{
	return is_manager(file) ? manager_status(status) : NEXT(__fxstat64)(version, file, status);
}
