#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int linux_check_access(const char *path)
{
	// AT_EACCESS: with the effective user ID, as open(2) does; access(2) uses the real one.
	return faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) ? errno : 0;
}

int linux_hold_file(int fd, uint64_t *device, uint64_t *number)
{
	struct stat status;
	int held = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (held < 0)
		return -errno;
	if (fstat(held, &status)) {
		int error = errno;

		close(held);
		return -error;
	}
	*device = status.st_dev;
	*number = status.st_ino;
	return held;
}

uint64_t linux_device_number(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? 0 : status.st_rdev;
}
