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
	// As the user that open(2) goes by, which in a program that has changed its user is not the one of access(2).
	return faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) ? errno : 0;
}

uint64_t linux_device_number(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? 0 : status.st_rdev;
}
