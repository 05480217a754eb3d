#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct thread {
	pthread_t handle;
	void (*body)(void *argument);
	void *argument;
};

static void *run(void *pointer)
{
	struct thread *thread = pointer;

	thread->body(thread->argument);
	return NULL;
}

static void *run_detached(void *pointer)
{
	struct thread thread = *(struct thread *)pointer;

	pthread_detach(pthread_self());
	free(pointer);
	thread.body(thread.argument);
	return NULL;
}

// Starts a thread with all signals blocked, so that no signal handler of the application runs on it. Returns what it
// passes to the routine, which run_detached may have freed, or null with errno set.
static struct thread *start(void *(*routine)(void *thread), void (*body)(void *argument), void *argument,
			    pthread_t *handle)
{
	struct thread *thread = malloc(sizeof(*thread));
	sigset_t all, before;
	int error;

	if (!thread)
		return NULL;
	thread->body = body;
	thread->argument = argument;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(handle, NULL, routine, thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		free(thread);
		errno = error;
		return NULL;
	}
	return thread;
}

void *linux_start_thread(const char *name, void (*body)(void *argument), void *argument)
{
	pthread_t handle;
	struct thread *thread = start(run, body, argument, &handle);

	if (thread) {
		thread->handle = handle;
		pthread_setname_np(handle, name);
	}
	return thread;
}

int linux_start_detached_thread(void (*body)(void *argument), void *argument)
{
	pthread_t handle;

	return start(run_detached, body, argument, &handle) ? 0 : errno;
}

void linux_join_thread(void *pointer)
{
	struct thread *thread = pointer;

	pthread_join(thread->handle, NULL);
	free(thread);
}

void linux_yield(void)
{
	sched_yield();
}

int linux_timer(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void linux_set_timer(int fd, uint64_t deadline)
{
	struct itimerspec when = { 0 };

	when.it_value.tv_sec = (time_t)(deadline / 1000000000u);
	when.it_value.tv_nsec = (long)(deadline % 1000000000u);
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void linux_drain(int fd)
{
	uint64_t count;

	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

uint64_t linux_wait_any(const int *descriptors, int count, int64_t timeout)
{
	struct pollfd entries[64];
	uint64_t ready = 0;
	struct timespec wait = { .tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000 };

	if (count > 64)
		count = 64;
	for (int index = 0; index < count; index++)
		entries[index] = (struct pollfd){ .fd = descriptors[index], .events = POLLIN };
	if (ppoll(entries, (nfds_t)count, timeout < 0 ? NULL : &wait, NULL) <= 0)
		return 0;
	for (int index = 0; index < count; index++)
		ready |= (uint64_t)(entries[index].revents != 0) << index;
	return ready;
}

int linux_wakeup(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}
