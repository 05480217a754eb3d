#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_uverbs.h"

#include <errno.h>
#include <fcntl.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int linux_open_node(const char *path, uint64_t number)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	error = linux_check_node(fd, number);
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

int linux_check_node(int fd, uint64_t number)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return errno;
	return S_ISCHR(status.st_mode) && status.st_rdev == number ? 0 : ENXIO;
}

int linux_uverbs_ioctl(int fd, void *request)
{
	return ioctl(fd, RDMA_VERBS_IOCTL, request) < 0 ? errno : 0;
}

int linux_uverbs_write(int fd, const void *request, size_t size)
{
	ssize_t written = write(fd, request, size);

	if (written < 0)
		return errno;
	/* The kernel consumes a command as a whole. */
	return (size_t)written == size ? 0 : EIO;
}

int linux_read_line(const char *path, char *line, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t count;

	if (fd < 0)
		return -errno;
	count = read(fd, line, capacity - 1);
	if (count < 0)
		count = -errno;
	close(fd);
	if (count < 0)
		return (int)count;
	if (count > 0 && line[count - 1] == '\n')
		count--;
	line[count] = '\0';
	return (int)count;
}
