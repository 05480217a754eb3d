/*
 * paths.h - lookup of the paths of software devices, for the functions that stand in front of the C library's.
 */
#ifndef SYSFS_PATHS_H
#define SYSFS_PATHS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rdma_sysfs.h"

#define EXPORT __attribute__((visibility("default")))
#define VIRTUAL_PATH "/sys/devices/virtual/infiniband"
#define NODE_PATH "/dev/infiniband"

/* The functions that this library stands in front of: exports.txt. */
#define FUNCTIONS(each) \
	each(__fxstat) \
	each(__fxstat64) \
	each(__fxstatat) \
	each(__fxstatat64) \
	each(__lxstat) \
	each(__lxstat64) \
	each(__open64_2) \
	each(__open_2) \
	each(__openat64_2) \
	each(__openat_2) \
	each(__readlink_chk) \
	each(__readlinkat_chk) \
	each(__realpath_chk) \
	each(__xstat) \
	each(__xstat64) \
	each(access) \
	each(canonicalize_file_name) \
	each(close) \
	each(close_range) \
	each(closedir) \
	each(closefrom) \
	each(dirfd) \
	each(dup) \
	each(dup2) \
	each(dup3) \
	each(eaccess) \
	each(euidaccess) \
	each(faccessat) \
	each(fcntl) \
	each(fcntl64) \
	each(fopen) \
	each(fopen64) \
	each(fstat) \
	each(fstat64) \
	each(fstatat) \
	each(fstatat64) \
	each(lstat) \
	each(lstat64) \
	each(open) \
	each(open64) \
	each(openat) \
	each(openat64) \
	each(opendir) \
	each(readdir) \
	each(readdir64) \
	each(readdir64_r) \
	each(readdir_r) \
	each(readlink) \
	each(readlinkat) \
	each(realpath) \
	each(rewinddir) \
	each(scandir) \
	each(scandir64) \
	each(seekdir) \
	each(stat) \
	each(stat64) \
	each(statx) \
	each(telldir) \
	each(write)

/* Functions of older programs, which the headers do not declare. */
int __xstat(int version, const char *path, struct stat *status);
int __lxstat(int version, const char *path, struct stat *status);
int __fxstat(int version, int file, struct stat *status);
int __fxstat64(int version, int file, struct stat64 *status);
int __fxstatat(int version, int directory, const char *path, struct stat *status, int flags);
int __xstat64(int version, const char *path, struct stat64 *status);
int __lxstat64(int version, const char *path, struct stat64 *status);
int __fxstatat64(int version, int directory, const char *path, struct stat64 *status, int flags);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int directory, const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags);
char *__realpath_chk(const char *path, char *resolved, size_t size);
ssize_t __readlink_chk(const char *path, char *target, size_t length, size_t size);
ssize_t __readlinkat_chk(int directory, const char *path, char *target, size_t length, size_t size);

/* Those of the C library, or of another library that stands in front of it. A constructor finds them, since dlsym(3) may
 * not be called where open(2) may be: in signal handlers, and after fork(2) in a process with threads. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
struct functions {
#define FUNCTION(name) __typeof__(&name) name;
	FUNCTIONS(FUNCTION)
#undef FUNCTION
};

extern struct functions next_functions;
void find_functions(void);

/* A constructor of another library may call a function before ours has run. */
#define NEXT(function)                                                                                     \
	({                                                                                                 \
		if (!__atomic_load_n(&next_functions.function, __ATOMIC_RELAXED))                          \
			find_functions();                                                                  \
		next_functions.function;                                                                   \
	})

struct entry {
	/* An rdma_sysfs_kind, or a negative errno value. */
	int kind;
	/* The file of the device in /dev/infiniband. */
	bool is_node;
	/* /dev/infiniband/rdma_cm. */
	bool is_manager;
	/* The path is one of /sys/devices. */
	bool is_virtual;
	/* The path below the directory of all devices; "" is this directory. */
	char path[256];
	char text[RDMA_SYSFS_SIZE];
	size_t length;
};

/* Set while this thread is in libibverbs, whose own paths are passed on. */
extern __thread bool is_inside;

/* Calls into libibverbs.so.1, whose own paths and descriptors are the kernel's. A thread that pthread_cancel(3) ended there
 * would leave locks held. */
#define INSIDE(call)                                                                                       \
	({                                                                                                 \
		const bool before = is_inside;                                                             \
		int cancellation;                                                                          \
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellation);                             \
		is_inside = true;                                                                          \
		const int answer = (call);                                                                 \
		is_inside = before;                                                                        \
		pthread_setcancelstate(cancellation, NULL);                                                \
		answer;                                                                                    \
	})

/* Returns the entry at an absolute path, in memory that the caller frees; NULL if it is none of a software device. */
struct entry *look_up(const char *path);

/* As look_up; most paths end here. Relative paths are the kernel's. */
static inline struct entry *find(const char *path)
{
	/* The headers say that a path is not NULL, so the compiler would leave the comparison out. */
	__asm__("" : "+r"(path));
	if (!path || path[0] != '/' || !strstr(path, "infiniband") || is_inside)
		return NULL;
	return look_up(path);
}

/* The calls of rdma_sysfs.h; NULL while libibverbs.so.1 is not loaded. */
struct manager_calls {
	__typeof__(&swift_rdma_cm_serves) serves;
	__typeof__(&swift_rdma_cm_open) open;
	__typeof__(&swift_rdma_cm_write) write;
	__typeof__(&swift_rdma_cm_close) close;
	__typeof__(&swift_rdma_cm_own) own;
};

extern struct manager_calls manager_calls;

/* manager.c: open(2) of /dev/infiniband/rdma_cm, and what stat(2) says of it. */
int open_manager(int flags);
int manager_status(struct stat64 *status);

/* Declares `entry`, whose memory is freed when the function returns. */
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
