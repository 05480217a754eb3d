#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_process.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Linux 6.5. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int linux_process(void)
{
	return (int)getpid();
}

int linux_open_process(int connection)
{
	struct ucred peer;
	socklen_t size = sizeof(int);
	int process;

	if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &process, &size) == 0)
		return process;
	size = sizeof(peer);
	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	/* A process of another PID namespace has no number here. */
	if (peer.pid <= 0)
		return -EOPNOTSUPP;
	process = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	return process < 0 ? -errno : process;
}

bool linux_process_has_ended(int process)
{
	struct pollfd end = { .fd = process, .events = POLLIN };

	return poll(&end, 1, 0) > 0;
}

int linux_read_process(int process, uint64_t address, void *bytes, size_t count)
{
	struct iovec here = { bytes, count }, there = { (void *)(uintptr_t)address, count };
	ssize_t copied = process_vm_readv(process, &here, 1, &there, 1, 0);

	if (copied < 0)
		return errno;
	return (size_t)copied == count ? 0 : EFAULT;
}

bool linux_copy_process(int process, const void *parts, int count, uint64_t address, bool writes)
{
	const struct iovec *here = parts;
	struct iovec there[2];
	size_t total = 0, last;
	int index, remote = 1;
	ssize_t copied;

	for (index = 0; index < count; index++)
		total += here[index].iov_len;
	if (total == 0)
		return true;
	there[0].iov_base = (void *)(uintptr_t)address;
	there[0].iov_len = total;
	if (!writes) {
		copied = process_vm_readv(process, here, (unsigned long)count, there, 1, 0);
		return copied >= 0 && (size_t)copied == total;
	}
	/* The kernel copies one remote part after the other, and a string instruction within each. */
	last = ((address + total - 1) & 7) + 1;
	if (last < total) {
		there[0].iov_len = total - last;
		there[1].iov_base = (void *)(uintptr_t)(address + total - last);
		there[1].iov_len = last;
		remote = 2;
	}
	copied = process_vm_writev(process, here, (unsigned long)count, there, (unsigned long)remote, 0);
	return copied >= 0 && (size_t)copied == total;
}
