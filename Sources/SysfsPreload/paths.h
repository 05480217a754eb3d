/*
 * paths.h - what is at a path of a software device, for the functions that stand in front of the C library's.
 */
#ifndef SYSFS_PATHS_H
#define SYSFS_PATHS_H

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "rdma_sysfs.h"

#define EXPORT __attribute__((visibility("default")))
#define VIRTUAL_PATH "/sys/devices/virtual/infiniband"
#define NODE_PATH "/dev/infiniband"

/* The function of the C library, or of another library that stands in front of it. */
#define NEXT(function)											\
	({												\
		static __typeof__(&function) next;							\
		__typeof__(&function) found = __atomic_load_n(&next, __ATOMIC_RELAXED);			\
		if (!found) {										\
			found = (__typeof__(&function))dlsym(RTLD_NEXT, #function);			\
			__atomic_store_n(&next, found, __ATOMIC_RELAXED);				\
		}											\
		found;											\
	})

struct entry {
	/* An rdma_sysfs_kind, or a negative errno value. */
	int kind;
	/* The file of the device in /dev/infiniband. */
	bool is_node;
	/* The path below the directory of all devices; "" is this directory. */
	char path[256];
	char text[RDMA_SYSFS_SIZE];
	size_t length;
};

/* Set while this thread is in libibverbs, whose own paths are passed on. */
extern __thread bool is_inside;

/* What is at an absolute path, in memory that the caller frees; NULL if that is none of a software device. */
struct entry *look_up(const char *path);

/* As look_up; most paths end here. A relative path, also of a function with a directory, is none of a software device: the
 * kernel has no directory of one. */
static inline struct entry *find(const char *path)
{
	if (!path || path[0] != '/' || is_inside || !strstr(path, "infiniband"))
		return NULL;
	return look_up(path);
}

/* What a function of ours looks at; its memory is freed when the function returns. */
#define LOOK_UP(path) __attribute__((cleanup(release))) struct entry *entry = find(path)

static inline void release(struct entry **entry)
{
	const int saved = errno;

	free(*entry);
	errno = saved;
}

static inline int fail(int error)
{
	errno = error;
	return -1;
}

#endif
