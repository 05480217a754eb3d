#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_environment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/auxv.h>
#include <sys/xattr.h>
#include <unistd.h>

const char *linux_getenv(const char *name)
{
	return secure_getenv(name);
}

long linux_read_file(const char *path, void *bytes, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t count = 0;
	struct stat status;
	long result = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) != 0)
		result = -errno;
	else if (!S_ISREG(status.st_mode))
		result = -EINVAL;
	while (result == 0) {
		char beyond;
		ssize_t got = count < capacity ? read(fd, (char *)bytes + count, capacity - count) : read(fd, &beyond, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			result = -errno;
		else if (got == 0)
			break;
		else if (count == capacity)
			result = -EFBIG;
		else
			count += (size_t)got;
	}
	close(fd);
	return result < 0 ? result : (long)count;
}

uint32_t linux_effective_uid(void)
{
	return geteuid();
}

int linux_is_privileged(void)
{
	return getauxval(AT_SECURE) != 0;
}

int linux_has_file_capabilities(const char *path)
{
	return getxattr(path, "security.capability", NULL, 0) > 0;
}
