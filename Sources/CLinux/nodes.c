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

uint64_t linux_device_number(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? 0 : status.st_rdev;
}
