#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_wait.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

void linux_futex_wait(const void *word, uint32_t expected)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void linux_futex_wake_one(const void *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void linux_close(int fd)
{
	close(fd);
}

int linux_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

void linux_eventfd_raise(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void linux_eventfd_clear(int fd)
{
	uint64_t count;

	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

int linux_counter(bool nonblocking)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE | (nonblocking ? EFD_NONBLOCK : 0));

	return fd < 0 ? -errno : fd;
}

bool linux_count_down(int fd)
{
	uint64_t one;
	struct iovec buffer = { .iov_base = &one, .iov_len = sizeof(one) };
	ssize_t count;

	do {
		count = preadv2(fd, &buffer, 1, -1, RWF_NOWAIT);
	} while (count < 0 && errno == EINTR);
	/* Before Linux 5.8, eventfd(2) does not support the flag; a sandbox may refuse the call. */
	if (count < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EPERM) && linux_is_nonblocking(fd))
		count = read(fd, &one, sizeof(one));
	return count == sizeof(one);
}

bool linux_is_nonblocking(int fd)
{
	return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

int linux_wait_readable(int fd)
{
	struct pollfd entry = { .fd = fd, .events = POLLIN };

	return poll(&entry, 1, -1) < 0 ? errno : 0;
}
