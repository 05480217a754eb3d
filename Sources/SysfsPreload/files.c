/*
 * files.c - the functions of one path: open(2), stat(2), access(2), readlink(2), realpath(3) and their variants.
 */
/* These are the functions that the C library would replace by checked ones. */
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "paths.h"

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "the structs of a machine of 64 bits");

/* ---- open, fopen ---- */

/* The directory of all devices is the kernel's: with its devices, if it has any, and without ours. */
static bool is_opened(const struct entry *entry)
{
	return entry && (*entry->path || entry->is_node);
}

static int open_entry(const struct entry *entry, int flags)
{
	int file;

	if (entry->is_manager)
		return open_manager(flags);
	if (entry->is_node)
		/* Only libibverbs opens it, and a software device has no commands. */
		return fail(ENXIO);
	if (entry->kind < 0)
		return fail(-entry->kind);
	if (entry->kind == RDMA_SYSFS_DIRECTORY)
		return fail(flags & O_DIRECTORY ? EOPNOTSUPP : EISDIR);
	if (flags & O_DIRECTORY)
		return fail(ENOTDIR);
	if ((flags & O_ACCMODE) != O_RDONLY)
		return fail(EACCES);
	file = memfd_create("sysfs", MFD_ALLOW_SEALING | (flags & O_CLOEXEC ? MFD_CLOEXEC : 0));
	if (file < 0)
		return -1;
	if (write(file, entry->text, entry->length) != (ssize_t)entry->length ||
	    fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) || lseek(file, 0, SEEK_SET)) {
		close(file);
		return fail(EIO);
	}
	return file;
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(arguments, int) : 0;
}

#define OPEN(name)											\
	EXPORT int name(const char *path, int flags, ...)						\
	{												\
		LOOK_UP(path);									\
		va_list arguments;									\
		mode_t mode;										\
													\
		va_start(arguments, flags);								\
		mode = mode_of(flags, arguments);							\
		va_end(arguments);									\
		return is_opened(entry) ? open_entry(entry, flags) : NEXT(name)(path, flags, mode);		\
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)											\
	EXPORT int name(int directory, const char *path, int flags, ...)				\
	{												\
		LOOK_UP(path);									\
		va_list arguments;									\
		mode_t mode;										\
													\
		va_start(arguments, flags);								\
		mode = mode_of(flags, arguments);							\
		va_end(arguments);									\
		return is_opened(entry) ? open_entry(entry, flags) :						\
					    NEXT(name)(directory, path, flags, mode);			\
	}
OPENAT(openat)
OPENAT(openat64)

#define OPEN_2(name)											\
	EXPORT int name(const char *path, int flags)							\
	{												\
		LOOK_UP(path);									\
													\
		return is_opened(entry) ? open_entry(entry, flags) : NEXT(name)(path, flags);			\
	}
OPEN_2(__open_2)
OPEN_2(__open64_2)

#define OPENAT_2(name)											\
	EXPORT int name(int directory, const char *path, int flags)					\
	{												\
		LOOK_UP(path);									\
													\
		return is_opened(entry) ? open_entry(entry, flags) : NEXT(name)(directory, path, flags);		\
	}
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

#define FOPEN(name)											\
	EXPORT FILE *name(const char *restrict path, const char *restrict mode)				\
	{												\
		LOOK_UP(path);									\
		FILE *stream;										\
		int file;										\
													\
		if (!entry)										\
			return NEXT(name)(path, mode);							\
		file = open_entry(entry, (mode[0] == 'r' && !strchr(mode, '+') ? O_RDONLY : O_RDWR) |	\
						  (strchr(mode, 'e') ? O_CLOEXEC : 0));			\
		if (file < 0)										\
			return NULL;									\
		stream = fdopen(file, mode);								\
		if (!stream)										\
			close(file);									\
		return stream;										\
	}
FOPEN(fopen)
FOPEN(fopen64)

/* ---- stat, access, readlink, realpath ---- */

/* lstat(2) reports a device in /sys/class/infiniband as a symbolic link, as for a kernel device. */
static bool is_link(const char *path, const struct entry *entry)
{
	return !entry->is_node && !entry->is_virtual && *entry->path && !strchr(entry->path, '/') &&
	       path[strlen(path) - 1] != '/';
}

static int status_of(const struct entry *entry, bool link, struct stat64 *status)
{
	if (entry->kind < 0 && entry->kind != -EINVAL)
		return fail(-entry->kind);
	if (entry->is_manager)
		return manager_status(status);
	if (entry->is_node)
		/* A character device that every user may open, like the real one. */
		return NEXT(stat64)("/dev/null", status);
	memset(status, 0, sizeof(*status));
	status->st_mode = link					       ? S_IFLNK | 0777 :
			  entry->kind == RDMA_SYSFS_DIRECTORY ? S_IFDIR | 0755 :
								       S_IFREG | 0444;
	status->st_nlink = entry->kind == RDMA_SYSFS_DIRECTORY ? 2 : 1;
	status->st_size = entry->kind == RDMA_SYSFS_DIRECTORY ? 0 : 4096;
	status->st_blksize = 4096;
	/* Equal for equal paths: FNV-1a. */
	status->st_ino = 0xcbf29ce484222325;
	for (const char *next = entry->path; *next; next++)
		status->st_ino = (status->st_ino ^ (unsigned char)*next) * 0x100000001b3;
	return 0;
}

#define STAT(name, type, link)										\
	EXPORT int name(const char *restrict path, struct type *restrict status)			\
	{												\
		LOOK_UP(path);									\
													\
		return entry ? status_of(entry, link, (struct stat64 *)(void *)status) :		\
					    NEXT(name)(path, status);					\
	}
STAT(stat, stat, false)
STAT(stat64, stat64, false)
STAT(lstat, stat, is_link(path, entry))
STAT(lstat64, stat64, is_link(path, entry))

#define XSTAT(name, type, link)										\
	EXPORT int name(int version, const char *path, struct type *status)				\
	{												\
		LOOK_UP(path);									\
													\
		return entry ? status_of(entry, link, (struct stat64 *)(void *)status) :		\
					    NEXT(name)(version, path, status);				\
	}
XSTAT(__xstat, stat, false)
XSTAT(__xstat64, stat64, false)
XSTAT(__lxstat, stat, is_link(path, entry))
XSTAT(__lxstat64, stat64, is_link(path, entry))

#define FSTATAT(name, type)										\
	EXPORT int name(int directory, const char *restrict path, struct type *restrict status, int flags) \
	{												\
		LOOK_UP(path);									\
													\
		return entry ? status_of(entry,								\
						      (flags & AT_SYMLINK_NOFOLLOW) && is_link(path, entry), \
						      (struct stat64 *)(void *)status) :		\
					    NEXT(name)(directory, path, status, flags);			\
	}
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)

#define FXSTATAT(name, type)										\
	EXPORT int name(int version, int directory, const char *path, struct type *status, int flags)	\
	{												\
		LOOK_UP(path);									\
													\
		return entry ? status_of(entry,								\
						      (flags & AT_SYMLINK_NOFOLLOW) && is_link(path, entry), \
						      (struct stat64 *)(void *)status) :		\
					    NEXT(name)(version, directory, path, status, flags);	\
	}
FXSTATAT(__fxstatat, stat)
FXSTATAT(__fxstatat64, stat64)

EXPORT int statx(int directory, const char *restrict path, int flags, unsigned int mask, struct statx *restrict status)
{
	LOOK_UP(path);
	struct stat64 known;

	if (!entry)
		return NEXT(statx)(directory, path, flags, mask, status);
	if (status_of(entry, (flags & AT_SYMLINK_NOFOLLOW) && is_link(path, entry), &known))
		return -1;
	memset(status, 0, sizeof(*status));
	status->stx_mask = STATX_BASIC_STATS;
	status->stx_blksize = (uint32_t)known.st_blksize;
	status->stx_nlink = (uint32_t)known.st_nlink;
	status->stx_mode = (uint16_t)known.st_mode;
	status->stx_ino = known.st_ino;
	status->stx_size = (uint64_t)known.st_size;
	return 0;
}

static int access_entry(const struct entry *entry, int mode)
{
	if (entry->kind < 0 && entry->kind != -EINVAL)
		return fail(-entry->kind);
	if (entry->is_node)
		return 0;
	if (mode & W_OK || (mode & X_OK && entry->kind != RDMA_SYSFS_DIRECTORY))
		return fail(EACCES);
	return 0;
}

#define ACCESS(name)											\
	EXPORT int name(const char *path, int mode)							\
	{												\
		LOOK_UP(path);									\
													\
		return entry ? access_entry(entry, mode) : NEXT(name)(path, mode);			\
	}
ACCESS(access)
ACCESS(euidaccess)
ACCESS(eaccess)

EXPORT int faccessat(int directory, const char *path, int mode, int flags)
{
	LOOK_UP(path);

	return entry ? access_entry(entry, mode) : NEXT(faccessat)(directory, path, mode, flags);
}

static ssize_t link_of(const char *path, const struct entry *entry, char *target, size_t size)
{
	char text[PATH_MAX];
	size_t length;

	if (entry->kind < 0 && entry->kind != -EINVAL)
		return fail(-entry->kind);
	if (!is_link(path, entry))
		return fail(EINVAL);
	length = (size_t)snprintf(text, sizeof(text), "../../devices/virtual/infiniband/%s", entry->path);
	if (length > size)
		length = size;
	memcpy(target, text, length);
	return (ssize_t)length;
}

EXPORT ssize_t readlink(const char *restrict path, char *restrict target, size_t size)
{
	LOOK_UP(path);

	return entry ? link_of(path, entry, target, size) : NEXT(readlink)(path, target, size);
}

EXPORT ssize_t readlinkat(int directory, const char *restrict path, char *restrict target, size_t size)
{
	LOOK_UP(path);

	return entry ? link_of(path, entry, target, size) : NEXT(readlinkat)(directory, path, target, size);
}

EXPORT ssize_t __readlink_chk(const char *path, char *target, size_t length, size_t size)
{
	LOOK_UP(path);

	return entry ? link_of(path, entry, target, length) : NEXT(__readlink_chk)(path, target, length, size);
}

EXPORT ssize_t __readlinkat_chk(int directory, const char *path, char *target, size_t length, size_t size)
{
	LOOK_UP(path);

	return entry ? link_of(path, entry, target, length) :
				    NEXT(__readlinkat_chk)(directory, path, target, length, size);
}

/* The path of the device in /sys/devices. `resolved`, or memory of malloc(3). */
static char *real_path(const struct entry *entry, char *resolved)
{
	char text[PATH_MAX];

	if (entry->kind < 0 && entry->kind != -EINVAL) {
		errno = -entry->kind;
		return NULL;
	}
	if (!*entry->path)
		strcpy(text, entry->is_virtual ? VIRTUAL_PATH : RDMA_SYSFS_PATH);
	else
		snprintf(text, sizeof(text), "%s/%s", entry->is_node ? NODE_PATH : VIRTUAL_PATH, entry->path);
	return resolved ? strcpy(resolved, text) : strdup(text);
}

EXPORT char *realpath(const char *restrict path, char *restrict resolved)
{
	LOOK_UP(path);

	return entry ? real_path(entry, resolved) : NEXT(realpath)(path, resolved);
}

EXPORT char *__realpath_chk(const char *path, char *resolved, size_t size)
{
	LOOK_UP(path);

	return entry ? real_path(entry, resolved) : NEXT(__realpath_chk)(path, resolved, size);
}

EXPORT char *canonicalize_file_name(const char *path)
{
	LOOK_UP(path);

	return entry ? real_path(entry, NULL) : NEXT(canonicalize_file_name)(path);
}
