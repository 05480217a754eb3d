// A thread of a provider's own, and what it sleeps on.
#ifndef SWIFT_RDMA_LINUX_THREAD_H
#define SWIFT_RDMA_LINUX_THREAD_H

#include <stdbool.h>
#include <stdint.h>

/// Starts a thread with all signals blocked. Its handle, to be joined, or null and errno.
void *linux_start_thread(const char *name, void (*body)(void *argument), void *argument);
/// Waits for its end.
void linux_join_thread(void *thread);

/// Has the calling thread wait for its turn when it wakes, instead of taking the processor from another at once
/// (SCHED_BATCH, sched(7)). Where that is forbidden, nothing changes.
void linux_prefer_batches(void);

/// Lets other threads have the processor.
void linux_yield(void);

/// A timer descriptor on CLOCK_MONOTONIC, or a negative errno value.
int linux_timer(void);
/// Sets when the timer's descriptor becomes readable, in nanoseconds of CLOCK_MONOTONIC; 0: never.
void linux_set_timer(int fd, uint64_t deadline);
/// Makes the descriptor of a timer or event unreadable, if it is not already. It must not block.
void linux_drain(int fd);

/// Waits until one of the descriptors is readable, or `timeout` nanoseconds have passed (negative: for ever). Negative
/// descriptors are left out.
void linux_wait_any(const int *descriptors, int count, int64_t timeout);

/// An event descriptor whose reading never waits, or a negative errno value.
int linux_wakeup(void);

#endif
