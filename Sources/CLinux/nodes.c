#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_nodes.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int linux_check_access(const char *path)
{
	return access(path, R_OK | W_OK) ? errno : 0;
}

uint64_t linux_device_number(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? 0 : status.st_rdev;
}
