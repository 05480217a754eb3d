#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_environment.h"

#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

const char *linux_getenv(const char *name)
{
	return secure_getenv(name);
}

uint32_t linux_effective_uid(void)
{
	return geteuid();
}

int linux_is_privileged(void)
{
	return getauxval(AT_SECURE) != 0;
}
