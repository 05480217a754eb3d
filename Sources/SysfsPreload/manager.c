/*
 * manager.c - /dev/infiniband/rdma_cm, through which librdmacm works: open(2), write(2), fstat(2), dup(2) and close(2).
 * Commands are passed to libibverbs.so.1 of this package (rdma_sysfs.h).
 *
 * An open file of the node is a counter of events (eventfd(2)), for poll(2) and O_NONBLOCK. libibverbs.so.1 has a
 * descriptor of it, whose number identifies the file. The program has copies of that descriptor.
 */
/* These are the functions that the C library would replace by checked ones. */
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "paths.h"

#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <rdma/rdma_user_cm.h>

#define MOST_DESCRIPTORS 65536

/* By descriptor of the program: 1 + the number of its open file of the node; 0 where it has none. */
static uint32_t file_of[MOST_DESCRIPTORS];

/* By number of an open file. */
static struct {
	/* The descriptors of the program that are copies of it. */
	uint32_t copies;
	/* 1 + the number of the next file in the list `ended`. */
	uint32_t next;
	/* As read_id. */
	int id;
} files[MOST_DESCRIPTORS];

/* 1 + the number of the first file whose last copy has ended, and that libibverbs.so.1 has still to close; 0 for none. */
static uint32_t ended;

/* What fstat(2) says of every eventfd(2): they have one inode, and so have other descriptors without a file, such as those of
 * epoll(7). Zeros before the first file is open. */
static struct {
	dev_t device;
	ino64_t inode;
	mode_t mode;
} anonymous;

/*
 * The process whose descriptors these are. A child of vfork(2) has this memory and a descriptor table of its own. A child
 * of fork(2) has copies of both, and no open file of the node (EPERM).
 */
static pid_t owner;

static bool is_owner(void)
{
	const pid_t process = __atomic_load_n(&owner, __ATOMIC_RELAXED);

	return process && process == getpid();
}

enum {
	/* Not known: without /proc, or without a free descriptor. */
	UNREADABLE = -1,
	/* The descriptor is none of an eventfd(2), or the kernel is older than Linux 5.2. */
	NO_ID = -2,
};

/* The kernel's number of an eventfd(2), "eventfd-id" in /proc/self/fdinfo, which is unique while it is open. Calls no function
 * that a signal handler may not call. */
static int read_id(int descriptor)
{
	static const char field[] = "eventfd-id:";
	char path[40] = "/proc/self/fdinfo/";
	char digits[12];
	char text[512];
	size_t length = strlen(path);
	size_t count = 0;
	const char *found;
	ssize_t size;
	int file;

	do
		digits[count++] = (char)('0' + descriptor % 10);
	while ((descriptor /= 10) > 0);
	while (count > 0)
		path[length++] = digits[--count];
	path[length] = '\0';
	file = NEXT(open)(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return UNREADABLE;
	size = read(file, text, sizeof(text) - 1);
	NEXT(close)(file);
	if (size <= 0)
		return UNREADABLE;
	text[size] = '\0';
	found = strstr(text, field);
	if (!found)
		return NO_ID;
	found += strlen(field);
	found += strspn(found, " \t");
	for (descriptor = 0; *found >= '0' && *found <= '9'; found++)
		descriptor = descriptor * 10 + (*found - '0');
	return descriptor;
}

/*
 * Whether a descriptor is a copy of the open file still: fclose(3) and system calls close descriptors without close(2). Where
 * the number of the eventfd(2) is not known, each one is taken for a copy; not so in a child of fork(2), which closes descriptors
 * that this library does not follow.
 */
static bool is_copy(int descriptor, int file)
{
	struct stat64 status;
	int id = UNREADABLE;

	if (NEXT(fstat64)(descriptor, &status) || status.st_dev != anonymous.device ||
	    status.st_ino != anonymous.inode || status.st_mode != anonymous.mode)
		return false;
	if (files[file].id >= 0)
		id = read_id(descriptor);
	return id == UNREADABLE ? is_owner() : id == files[file].id;
}

/* The file has no copy any more. Takes no lock: this may be a thread of libibverbs.so.1, or a signal handler that interrupts
 * one. */
static void note_end(int file)
{
	uint32_t head = __atomic_load_n(&ended, __ATOMIC_RELAXED);

	do
		files[file].next = head;
	while (!__atomic_compare_exchange_n(&ended, &head, (uint32_t)file + 1, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* Closes the files that have ended. Only where the program works with the node: libibverbs.so.1 takes locks. */
static void close_ended(void)
{
	const int saved = errno;
	uint32_t entry;

	if (is_inside || !__atomic_load_n(&ended, __ATOMIC_RELAXED) || !is_owner())
		return;
	entry = __atomic_exchange_n(&ended, 0, __ATOMIC_ACQUIRE);
	while (entry) {
		const int file = (int)entry - 1;

		entry = files[file].next;
		if (INSIDE(manager_calls.close(file)) == -EBUSY)
			note_end(file);
	}
	errno = saved;
}

/* The program has closed a descriptor, or has another file there. */
static void forget(int descriptor)
{
	const uint32_t entry = __atomic_exchange_n(&file_of[descriptor], 0, __ATOMIC_ACQ_REL);
	const int file = (int)entry - 1;

	if (entry && __atomic_sub_fetch(&files[file].copies, 1, __ATOMIC_ACQ_REL) == 0)
		note_end(file);
}

/* The program has a copy of the open file at the descriptor. */
static void remember(int descriptor, int file)
{
	__atomic_add_fetch(&files[file].copies, 1, __ATOMIC_ACQ_REL);
	__atomic_store_n(&file_of[descriptor], (uint32_t)file + 1, __ATOMIC_RELEASE);
}

/* 1 + the number of the open file of the node that the program had at a descriptor last; 0 if it had none there. */
static inline uint32_t noted_file(int descriptor)
{
	return descriptor < 0 || descriptor >= MOST_DESCRIPTORS ? 0 :
								  __atomic_load_n(&file_of[descriptor], __ATOMIC_ACQUIRE);
}

/* The open file of the node at a descriptor; -1 if another file is there. */
static int find_file(int descriptor)
{
	const int saved = errno;
	const uint32_t entry = noted_file(descriptor);
	int file, is_ours;

	if (!entry)
		return -1;
	file = (int)entry - 1;
	is_ours = INSIDE(is_copy(descriptor, file));
	if (!is_ours && is_owner())
		forget(descriptor);
	errno = saved;
	return is_ours ? file : -1;
}

/* The descriptor is not the program's, or no copy of a file that was there before and was closed without close(2). */
static int emptied(int descriptor)
{
	if (descriptor >= 0 && descriptor < MOST_DESCRIPTORS)
		forget(descriptor);
	return descriptor;
}

int open_manager(int flags)
{
	struct stat64 status;
	int descriptor, file;

	close_ended();
	file = emptied(INSIDE(manager_calls.open(flags)));
	if (file < 0)
		return fail(-file);
	descriptor = file >= MOST_DESCRIPTORS ?
			     fail(EMFILE) :
			     NEXT(fcntl)(file, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (descriptor >= MOST_DESCRIPTORS) {
		NEXT(close)(descriptor);
		descriptor = fail(EMFILE);
	}
	if (descriptor < 0) {
		const int error = errno;

		INSIDE(manager_calls.close(file));
		return fail(error);
	}
	emptied(descriptor);
	if (!NEXT(fstat64)(file, &status)) {
		anonymous.device = status.st_dev;
		anonymous.inode = status.st_ino;
		anonymous.mode = status.st_mode;
	}
	files[file].id = INSIDE(read_id(file));
	__atomic_store_n(&owner, getpid(), __ATOMIC_RELEASE);
	remember(descriptor, file);
	return descriptor;
}

/* librdmacm compares the number of the device with that of the kernel's node, if there is one. */
int manager_status(struct stat64 *status)
{
	const int saved = errno;
	struct stat64 node;
	unsigned major = 10, minor = 255;
	FILE *number;

	if (!NEXT(stat64)("/dev/infiniband/rdma_cm", &node)) {
		*status = node;
		return 0;
	}
	number = NEXT(fopen)("/sys/class/misc/rdma_cm/dev", "re");
	if (number) {
		if (fscanf(number, "%u:%u", &major, &minor) != 2)
			(major = 10, minor = 255);
		fclose(number);
	}
	memset(status, 0, sizeof(*status));
	status->st_mode = S_IFCHR | 0666;
	status->st_nlink = 1;
	status->st_rdev = makedev(major, minor);
	status->st_blksize = 4096;
	errno = saved;
	return 0;
}

/* ---- commands ---- */

static ssize_t write_command(int descriptor, int file, const void *bytes, size_t length)
{
	struct {
		struct rdma_ucm_cmd_hdr header;
		struct rdma_ucm_migrate_id request;
	} migration = {};
	struct rdma_ucm_cmd_hdr *const header = &migration.header;
	size_t size = length;
	bool is_read = false;
	uint64_t count;
	int error;

	if (!is_owner())
		return fail(EPERM);
	/* A signal handler that interrupts libibverbs.so.1. */
	if (is_inside)
		return fail(EBUSY);
	close_ended();
	if (length >= sizeof(*header)) {
		memcpy(header, bytes, sizeof(*header));
		/* Malformed commands are refused before they wait. */
		is_read = header->cmd == RDMA_USER_CM_CMD_GET_EVENT && header->in + sizeof(*header) <= length;
		if (header->cmd == RDMA_USER_CM_CMD_MIGRATE_ID && length >= sizeof(migration) &&
		    header->in + sizeof(*header) <= length) {
			/* The program names its descriptor, and libibverbs.so.1 knows the file. */
			memcpy(&migration, bytes, sizeof(migration));
			if (NEXT(fcntl)((int)migration.request.fd, F_GETFD) < 0)
				return fail(ENOENT);
			migration.request.fd = (uint32_t)find_file((int)migration.request.fd);
			if (header->in > sizeof(migration.request))
				header->in = sizeof(migration.request);
			bytes = &migration;
			size = sizeof(migration);
		}
	}
	do {
		/* Blocks, fails, is interrupted and is cancelled as the kernel's GET_EVENT. */
		if (is_read && read(descriptor, &count, sizeof(count)) < 0)
			return -1;
		error = INSIDE(manager_calls.write(file, bytes, size));
	} while (is_read && error == -EAGAIN);
	if (is_read && error == -EBUSY) {
		/* Refused before it was looked at: the event waits still. */
		count = 1;
		if (NEXT(write)(descriptor, &count, sizeof(count)) < 0)
			return fail(EBUSY);
	}
	return error ? fail(-error) : (ssize_t)length;
}

static __attribute__((noinline)) ssize_t write_to_noted(int descriptor, const void *bytes, size_t length)
{
	const int file = find_file(descriptor);

	return file >= 0 ? write_command(descriptor, file, bytes, length) : NEXT(write)(descriptor, bytes, length);
}

/* Each write(2) of the program comes here, such as the doorbells of the kernel's rxe: a few instructions, without a stack
 * frame. Benchmarks/dropin-over-rxe counts them. */
EXPORT ssize_t write(int descriptor, const void *bytes, size_t length)
{
	const __typeof__(&write) next = __atomic_load_n(&next_functions.write, __ATOMIC_RELAXED);

	return !next || noted_file(descriptor) ? write_to_noted(descriptor, bytes, length) :
						 next(descriptor, bytes, length);
}

/* ---- copies of the descriptor, and their ends ---- */

/*
 * The first of the descriptors of libibverbs.so.1 in a range, which the program does not close: it would have another file there
 * then, to which libibverbs.so.1 writes. That library takes a number out of the list before it closes it. -1 if there is none.
 */
static int find_own(unsigned first, unsigned last)
{
	int found;

	if (!__atomic_load_n(&owner, __ATOMIC_ACQUIRE))
		return -1;
	found = manager_calls.own(first, last);
	return found >= 0 && is_owner() ? found : -1;
}

static bool is_own(int descriptor)
{
	return descriptor >= 0 && find_own((unsigned)descriptor, (unsigned)descriptor) >= 0;
}

EXPORT int close(int descriptor)
{
	const bool is_known = find_file(descriptor) >= 0 && is_owner();
	int answer;

	if (is_own(descriptor))
		return fail(EBADF);
	if (is_known)
		forget(descriptor);
	answer = NEXT(close)(descriptor);
	/* Not for a number that was the program's before: a thread of libibverbs.so.1 closes it. */
	if (is_known)
		close_ended();
	return answer;
}

/* Before the descriptors are closed: another thread may have their numbers afterwards. */
static void forget_range(unsigned first, unsigned last)
{
	if (!is_owner())
		return;
	for (unsigned descriptor = first; descriptor <= last && descriptor < MOST_DESCRIPTORS; descriptor++)
		if (__atomic_load_n(&file_of[descriptor], __ATOMIC_RELAXED))
			forget((int)descriptor);
	close_ended();
}

/* Closes the descriptors of the program before the last one of libibverbs.so.1 in the range. Returns the number after that. */
static unsigned close_around(unsigned first, unsigned last)
{
	const int saved = errno;
	int own;

	while (first <= last && (own = find_own(first, last)) >= 0) {
		if (first < (unsigned)own && syscall(SYS_close_range, first, own - 1, 0))
			/* Before Linux 5.9. */
			for (int descriptor = (int)first; descriptor < own; descriptor++)
				NEXT(close)(descriptor);
		first = (unsigned)own + 1;
	}
	errno = saved;
	return first;
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	if (!flags && first <= last) {
		forget_range(first, last);
		first = close_around(first, last);
		if (first > last)
			return 0;
	}
	/* Older C libraries do not have it. */
	return NEXT(close_range) ? NEXT(close_range)(first, last, flags) :
				   (int)syscall(SYS_close_range, first, last, flags);
}

EXPORT void closefrom(int first)
{
	const unsigned start = first < 0 ? 0 : (unsigned)first;

	forget_range(start, UINT32_MAX);
	first = (int)close_around(start, UINT32_MAX);
	if (NEXT(closefrom))
		NEXT(closefrom)(first);
	else
		syscall(SYS_close_range, first, UINT32_MAX, 0);
}

/* `to` is a copy of `from` now, whose open file of the node is `file`, or -1. Returns `to`. */
static int copied(int file, int to)
{
	if (to < 0 || to >= MOST_DESCRIPTORS || !is_owner())
		return to;
	/* The new copy is counted first: the other one may be the last of the same file. */
	if (file >= 0)
		__atomic_add_fetch(&files[file].copies, 1, __ATOMIC_ACQ_REL);
	forget(to);
	if (file >= 0)
		__atomic_store_n(&file_of[to], (uint32_t)file + 1, __ATOMIC_RELEASE);
	return to;
}

/* As `copied`, for a descriptor that is replaced, which was a copy of the open file `before`, or of none (-1). */
static int replaced(int file, int before, int to)
{
	copied(file, to);
	if (before >= 0 && to >= 0)
		close_ended();
	return to;
}

EXPORT int dup(int from)
{
	return copied(find_file(from), NEXT(dup)(from));
}

EXPORT int dup2(int from, int to)
{
	const int file = find_file(from);
	const int before = find_file(to);
	int answer;

	if (is_own(to))
		return fail(EBUSY);
	answer = NEXT(dup2)(from, to);

	return from == to ? answer : replaced(file, before, answer);
}

EXPORT int dup3(int from, int to, int flags)
{
	const int file = find_file(from);
	const int before = find_file(to);

	if (is_own(to))
		return fail(EBUSY);
	return replaced(file, before, NEXT(dup3)(from, to, flags));
}

#define FCNTL(name)                                                                                        \
	EXPORT int name(int descriptor, int command, ...)                                                  \
	{                                                                                                  \
		va_list arguments;                                                                         \
		void *argument;                                                                            \
                                                                                                           \
		/* An int or a pointer, which are passed alike. */                                         \
		va_start(arguments, command);                                                              \
		argument = va_arg(arguments, void *);                                                      \
		va_end(arguments);                                                                         \
		if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)                                      \
			return copied(find_file(descriptor), NEXT(name)(descriptor, command, argument));   \
		return NEXT(name)(descriptor, command, argument);                                          \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- its status ---- */

EXPORT int fstat(int descriptor, struct stat *status)
{
	return find_file(descriptor) >= 0 ? manager_status((struct stat64 *)(void *)status) :
					    NEXT(fstat)(descriptor, status);
}

EXPORT int fstat64(int descriptor, struct stat64 *status)
{
	return find_file(descriptor) >= 0 ? manager_status(status) : NEXT(fstat64)(descriptor, status);
}

EXPORT int __fxstat(int version, int descriptor, struct stat *status)
{
	return find_file(descriptor) >= 0 ? manager_status((struct stat64 *)(void *)status) :
					    NEXT(__fxstat)(version, descriptor, status);
}

EXPORT int __fxstat64(int version, int descriptor, struct stat64 *status)
{
	return find_file(descriptor) >= 0 ? manager_status(status) :
					    NEXT(__fxstat64)(version, descriptor, status);
}
