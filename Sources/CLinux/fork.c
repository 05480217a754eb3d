#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_fork.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

static const volatile uint32_t unmarked = 1;

const volatile uint32_t *linux_process_mark = &unmarked;

/* The kernel zeroes the page in a child, whatever calls it was made by: handlers of pthread_atfork(3) do not run for
 * _Fork(3) and clone(2). Without the page (Linux before 4.14) no child is detected. */
static void mark(void)
{
	const size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	if (madvise(page, size, MADV_WIPEONFORK) < 0) {
		munmap(page, size);
		return;
	}
	*page = 1;
	__atomic_store_n(&linux_process_mark, page, __ATOMIC_RELEASE);
}

void linux_mark_process(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, mark);
}
