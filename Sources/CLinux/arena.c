#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_arena.h"

#include "linux_local.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENAS 1024

/* The arenas of this process, for a child. A place is taken while `size` is not 0; `address` is set last and cleared
 * first, so that a child that another thread forks at any moment finds whole entries. */
static struct {
	atomic_size_t size;
	atomic_int fd;
	_Atomic(void *) address;
} arenas[ARENAS];

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void copy_in_child(void)
{
	int index;

	for (index = 0; index < ARENAS; index++) {
		void *address = atomic_load(&arenas[index].address);

		if (address)
			mmap(address, atomic_load(&arenas[index].size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
			     atomic_load(&arenas[index].fd), 0);
	}
}

static void follow_forks(void)
{
	pthread_atfork(NULL, NULL, copy_in_child);
}

static bool enter(int fd, void *address, size_t size)
{
	int index;

	for (index = 0; index < ARENAS; index++) {
		size_t none = 0;

		if (!atomic_compare_exchange_strong(&arenas[index].size, &none, size))
			continue;
		atomic_store(&arenas[index].fd, fd);
		atomic_store(&arenas[index].address, address);
		return true;
	}
	return false;
}

static void leave(const void *address)
{
	int index;

	for (index = 0; index < ARENAS; index++)
		if (atomic_load(&arenas[index].address) == address) {
			atomic_store(&arenas[index].address, NULL);
			atomic_store(&arenas[index].size, 0);
		}
}

static int map(int fd, size_t size, void **address)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return errno;
	*address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*address == MAP_FAILED)
		return errno;
	pthread_once(&once, follow_forks);
	if (enter(fd, *address, size))
		return 0;
	munmap(*address, size);
	return ENOMEM;
}

int linux_make_arena(const char *name, size_t size, int *fd, void **address)
{
	return linux_make_memory(name, size, fd, address, map);
}

void linux_close_arena(int fd, void *address, size_t size)
{
	leave(address);
	munmap(address, size);
	close(fd);
}

void linux_discard(int fd, uint64_t offset, void *address, size_t size)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0)
		memset(address, 0, size);
}

bool linux_commits_strictly(void)
{
	char mode = 0;
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read(fd, &mode, 1) < 0)
		mode = 0;
	close(fd);
	return mode == '2';
}
