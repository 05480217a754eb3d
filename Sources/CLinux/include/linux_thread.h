// Threads of a provider, and the timers and event descriptors on which they wait.
#ifndef SWIFT_RDMA_LINUX_THREAD_H
#define SWIFT_RDMA_LINUX_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/// Starts a thread with all signals blocked. Returns its handle for linux_join_thread, or null and sets errno.
void *linux_start_thread(const char *name, void (*body)(void *argument), void *argument);
/// Waits for the end of a thread, and frees its handle.
void linux_join_thread(void *thread);

/// Starts a thread with all signals blocked, for which nobody waits. Returns 0, or an errno value.
int linux_start_detached_thread(void (*body)(void *argument), void *argument);

/// A number of the calling thread: not 0, even, and unique in the process while the thread exists. It is one
/// instruction, except in the thunk that Swift generates for a C function pointer, where no C function is inlined: mark
/// such functions @inline(never).
__attribute__((always_inline)) static inline uintptr_t linux_this_thread(void)
{
	uintptr_t thread;
#if defined(__x86_64__)
	__asm__("movq %%fs:0, %0" : "=r"(thread));
#elif defined(__aarch64__)
	__asm__("mrs %0, tpidr_el0" : "=r"(thread));
#else
	thread = (uintptr_t)pthread_self();
#endif
	return thread;
}

/// Yields the processor (sched_yield(2)).
void linux_yield(void);

/// Creates a timer on CLOCK_MONOTONIC (timerfd_create(2)). Returns the descriptor, or a negative errno value.
int linux_timer(void);
/// Arms the timer: its descriptor becomes readable at `deadline`, in nanoseconds of CLOCK_MONOTONIC; 0 disarms it.
void linux_set_timer(int fd, uint64_t deadline);
/// Reads a timer or event descriptor, so that it is not readable. The descriptor must be non-blocking.
void linux_drain(int fd);

/// Waits until one of the descriptors is readable, or `timeout` nanoseconds have passed (negative: no limit). Negative
/// descriptors and those after the first 64 are ignored. Bit N of the result: descriptor N is readable.
uint64_t linux_wait_any(const int *descriptors, int count, int64_t timeout);

/// Creates a non-blocking event descriptor (eventfd(2)). Returns it, or a negative errno value.
int linux_wakeup(void);

#endif
