#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_environment.h"

#include <stddef.h>
#include <sys/auxv.h>
#include <unistd.h>

// glibc calls every constructor with the arguments of main.
static int argument_count;
static char **argument_list;

__attribute__((constructor)) static void keep_arguments(int count, char **list, char **environment)
{
	(void)environment;
	argument_count = count;
	argument_list = list;
}

int linux_argument_count(void)
{
	return argument_count;
}

const char *linux_argument(int index)
{
	return index >= 0 && index < argument_count ? argument_list[index] : NULL;
}

const char *linux_program_path(void)
{
	static const char link[] = "/proc/self/exe";

	return access(link, X_OK) == 0 ? link : (const char *)getauxval(AT_EXECFN);
}
