/*
 * The functions of the C library through which a program reaches a device. A call for a simulated device goes to the
 * simulator, every other call to the kernel.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sim_system.h"
#include "uverbs_sim.h"

/* The C library's implementations, by their internal names. */
extern ssize_t __read(int fd, void *buffer, size_t size);
extern ssize_t __write(int fd, const void *buffer, size_t size);
extern int __close(int fd);
extern int __open64(const char *path, int flags, ...);

#define EXPORTED __attribute__((visibility("default")))

static bool any;

__attribute__((constructor)) static void start(void)
{
	const char *description = getenv("UVERBS_SIM");

	sim_sysfs_enable();
	if (!description || !*description)
		return;
	any = true;
	if (uverbs_sim_create(description) < 0) {
		static const char text[] =
			"uverbs-sim: UVERBS_SIM names no device, or a directory that is no wire; see uverbs_sim.h\n";

		(void)!__write(STDERR_FILENO, text, sizeof(text) - 1);
		_exit(2);
	}
}

static int find(const char *path)
{
	static const char directory[] = "/dev/infiniband/";

	return path && strncmp(path, directory, sizeof(directory) - 1) == 0 ? sim_find_node(path) : -1;
}

static int answer(int error)
{
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

/* ---- names ---- */

static int open_path(int directory, const char *path, int flags, mode_t mode)
{
	int device = find(path);
	int fd;

	if (device < 0)
		return directory == AT_FDCWD ? __open64(path, flags, mode)
					     : (int)syscall(SYS_openat, directory, path, flags, mode);
	fd = sim_open(device);
	return fd < 0 ? answer(-fd) : fd;
}

#define MODE(flags, last)                                        \
	mode_t mode = 0;                                         \
	if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {  \
		va_list list;                                    \
		va_start(list, last);                            \
		mode = va_arg(list, mode_t);                     \
		va_end(list);                                    \
	}

EXPORTED int open(const char *path, int flags, ...)
{
	MODE(flags, flags)
	return open_path(AT_FDCWD, path, flags, mode);
}

EXPORTED int open64(const char *path, int flags, ...)
{
	MODE(flags, flags)
	return open_path(AT_FDCWD, path, flags, mode);
}

EXPORTED int openat(int directory, const char *path, int flags, ...)
{
	MODE(flags, flags)
	return open_path(directory, path, flags, mode);
}

EXPORTED int openat64(int directory, const char *path, int flags, ...)
{
	MODE(flags, flags)
	return open_path(directory, path, flags, mode);
}

/* A program that was compiled with _FORTIFY_SOURCE calls these. */
EXPORTED int __open_2(const char *path, int flags) { return open_path(AT_FDCWD, path, flags, 0); }
EXPORTED int __open64_2(const char *path, int flags) { return open_path(AT_FDCWD, path, flags, 0); }
EXPORTED int __openat_2(int directory, const char *path, int flags) { return open_path(directory, path, flags, 0); }
EXPORTED int __openat64_2(int directory, const char *path, int flags) { return open_path(directory, path, flags, 0); }

EXPORTED int access(const char *path, int mode)
{
	return find(path) >= 0 ? 0 : (int)syscall(SYS_access, path, mode);
}

EXPORTED int faccessat(int directory, const char *path, int mode, int flags)
{
	if (find(path) >= 0)
		return 0;
	/* Linux before 5.8 has no faccessat2. */
	return (int)(flags ? syscall(SYS_faccessat2, directory, path, mode, flags)
			   : syscall(SYS_faccessat, directory, path, mode));
}

static void describe(int device, struct stat *status)
{
	memset(status, 0, sizeof(*status));
	status->st_mode = S_IFCHR | 0666;
	status->st_nlink = 1;
	status->st_rdev = sim_node_number(device);
	status->st_blksize = 4096;
}

EXPORTED int fstatat(int directory, const char *path, struct stat *status, int flags)
{
	int device = find(path);

	if (device < 0)
		return (int)syscall(SYS_newfstatat, directory, path, status, flags);
	describe(device, status);
	return 0;
}

EXPORTED int fstatat64(int directory, const char *path, struct stat64 *status, int flags)
{
	return fstatat(directory, path, (struct stat *)status, flags);
}

EXPORTED int stat(const char *path, struct stat *status) { return fstatat(AT_FDCWD, path, status, 0); }
EXPORTED int stat64(const char *path, struct stat64 *status) { return fstatat64(AT_FDCWD, path, status, 0); }

EXPORTED int fstat(int fd, struct stat *status)
{
	int device = sim_owns(fd) ? sim_device_of(fd) : -1;

	if (device < 0)
		return (int)syscall(SYS_fstat, fd, status);
	describe(device, status);
	return 0;
}

EXPORTED int fstat64(int fd, struct stat64 *status) { return fstat(fd, (struct stat *)status); }

/* RDMA netlink of the kernel would list its own devices and not the simulated one. */
EXPORTED int socket(int domain, int type, int protocol)
{
	if (any && domain == AF_NETLINK && protocol == NETLINK_RDMA)
		return answer(EPROTONOSUPPORT);
	return (int)syscall(SYS_socket, domain, type, protocol);
}

/* ---- descriptors ---- */

EXPORTED int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	return sim_owns(fd) ? answer(sim_ioctl(fd, request, argument)) : (int)syscall(SYS_ioctl, fd, request, argument);
}

/*
 * Waits for an event. Returns false, and the reason in errno, when the descriptor is nonblocking or a signal arrives.
 * When another thread closes the descriptor meanwhile, the wait goes on, as in the kernel, where it holds the file.
 */
static bool wait_readable(int fd, uint64_t serial)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };

	if (fcntl(fd, F_GETFL) & O_NONBLOCK) {
		errno = EAGAIN;
		return false;
	}
	if (poll(&readable, 1, -1) < 0)
		return false;
	if (sim_serial(fd) == serial)
		return true;
	pause();
	return false;
}

EXPORTED ssize_t write(int fd, const void *buffer, size_t size)
{
	uint64_t serial;
	int error;

	if (!sim_owns(fd))
		return __write(fd, buffer, size);
	serial = sim_serial(fd);
	while ((error = sim_write(fd, buffer, size)) == EAGAIN) {
		if (!wait_readable(fd, serial))
			return -1;
	}
	return answer(error) < 0 ? -1 : (ssize_t)size;
}

EXPORTED ssize_t read(int fd, void *buffer, size_t size)
{
	uint64_t serial;
	ssize_t count;

	if (!sim_owns(fd))
		return __read(fd, buffer, size);
	serial = sim_serial(fd);
	while ((count = sim_read(fd, buffer, size)) == 0) {
		if (!wait_readable(fd, serial))
			return -1;
	}
	return count < 0 ? answer((int)-count) : count;
}

EXPORTED int close(int fd)
{
	if (sim_owns(fd))
		sim_close(fd);
	return __close(fd);
}

/* ---- mappings ---- */

EXPORTED void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	struct sim_mapping mapping = { .trapped = false, .offset = (uint64_t)offset };
	void *result;
	int error;

	if (!(flags & MAP_ANONYMOUS) && sim_owns(fd)) {
		error = sim_mmap(fd, length, protection, flags, (uint64_t)offset, &mapping);
		if (error) {
			errno = error;
			return MAP_FAILED;
		}
	}
	result = (void *)syscall(SYS_mmap, address, length, mapping.trapped ? PROT_NONE : protection, flags, fd, (off_t)mapping.offset);
	if (result != MAP_FAILED && mapping.trapped)
		sim_trap(result, &mapping);
	return result;
}

EXPORTED void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return mmap(address, length, protection, flags, fd, offset);
}

EXPORTED int munmap(void *address, size_t length)
{
	sim_untrap(address, length);
	return (int)syscall(SYS_munmap, address, length);
}
