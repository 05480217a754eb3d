#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_system.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* Larger than all queues of a device together. The file is sparse: a page uses memory after the first store to it. */
#define FILE_SIZE (1ULL << 40)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void sim_lock(void) { pthread_mutex_lock(&lock); }
void sim_unlock(void) { pthread_mutex_unlock(&lock); }

int sim_memory_file(void)
{
	int fd = memfd_create("uverbs", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, FILE_SIZE) < 0) {
		int error = errno;

		sim_discard(fd);
		return -error;
	}
	return fd;
}

void *sim_view(int fd, uint64_t offset, size_t size)
{
	long view = syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	return view == -1 ? NULL : (void *)view;
}

void sim_end_view(void *address, size_t size) { syscall(SYS_munmap, address, size); }

int sim_counter(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);

	return fd < 0 ? -errno : fd;
}

void sim_count_up(int fd)
{
	uint64_t one = 1;

	syscall(SYS_write, fd, &one, sizeof(one));
}

void sim_count_down(int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	uint64_t one;

	/* The count changes only with the lock held: it does not become 0 between poll and read. */
	if (poll(&readable, 1, 0) > 0)
		syscall(SYS_read, fd, &one, sizeof(one));
}

void sim_discard(int fd) { syscall(SYS_close, fd); }

static atomic_uchar owners[1 << 16];

void sim_own(int fd, bool owned)
{
	if (fd >= 0 && fd < (int)(sizeof(owners) / sizeof(owners[0])))
		atomic_store_explicit(&owners[fd], owned, memory_order_release);
}

bool sim_owns(int fd)
{
	return fd >= 0 && fd < (int)(sizeof(owners) / sizeof(owners[0])) &&
	       atomic_load_explicit(&owners[fd], memory_order_acquire);
}

/* Populates every page, as the kernel does when it pins memory. Returns an errno value. */
static int populate(uint64_t address, uint64_t size, bool writable)
{
	uint64_t first = address & ~4095ULL;
	uint64_t end = (address + size + 4095) & ~4095ULL;

	if (end <= first)
		return EINVAL;
	return madvise((void *)first, end - first, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) ? errno : 0;
}

bool sim_is_mapped(uint64_t address, uint64_t size, bool writable)
{
	static char own;
	int error = size == 0 ? 0 : populate(address, size, writable);

	/* A kernel before 5.14 refuses MADV_POPULATE_… for all memory. */
	return error == 0 || (error == EINVAL && populate((uint64_t)(uintptr_t)&own, 1, false) == EINVAL);
}

static void *run(void *argument)
{
	int device = (int)(intptr_t)argument;
	struct pollfd wire = { .events = POLLIN };
	int64_t rest;

	while ((rest = sim_run_freely(device, &wire.fd)) >= 0) {
		struct timespec pause = { .tv_sec = rest / 1000000000, .tv_nsec = rest % 1000000000 };

		ppoll(&wire, 1, &pause, NULL);
	}
	return NULL;
}

bool sim_start_thread(int device)
{
	pthread_attr_t attributes;
	sigset_t all, former;
	pthread_t thread;
	int error;

	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &former);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, run, (void *)(intptr_t)device);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &former, NULL);
	return error == 0;
}
