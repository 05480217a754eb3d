#include "linux_exit.h"

#include "linux_fork.h"

#include <pthread.h>
#include <stddef.h>

/* One for each open device, of which a user has 256 at most. */
enum { COUNT = 256 };

static struct {
	void (*function)(void *object);
	void *object;
} entries[COUNT];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool linux_call_at_exit(void (*function)(void *object), void *object)
{
	bool done = false;

	pthread_mutex_lock(&lock);
	for (int index = 0; index < COUNT && !done; index++) {
		if (entries[index].function)
			continue;
		entries[index].function = function;
		entries[index].object = object;
		done = true;
	}
	pthread_mutex_unlock(&lock);
	return done;
}

void linux_forget_at_exit(const void *object)
{
	pthread_mutex_lock(&lock);
	for (int index = 0; index < COUNT; index++)
		if (entries[index].object == object) {
			entries[index].function = NULL;
			entries[index].object = NULL;
		}
	pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void call_at_exit(void)
{
	/* A child of fork(2) has a copy of what its parent sends. A thread that was killed may have had the lock. */
	if (linux_is_forked_child() || pthread_mutex_trylock(&lock) != 0)
		return;
	for (int index = 0; index < COUNT; index++)
		if (entries[index].function)
			entries[index].function(entries[index].object);
	pthread_mutex_unlock(&lock);
}
