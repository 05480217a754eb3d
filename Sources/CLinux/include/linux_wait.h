// Waiting: futexes and event descriptors.
//
// Like every header of this target that Swift imports, it names no type of the C library: two modules that see the C
// library under different feature macros cannot be imported together.
#ifndef SWIFT_RDMA_LINUX_WAIT_H
#define SWIFT_RDMA_LINUX_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/// Sleeps as long as *word is `expected`, or until woken, or for no reason at all.
void linux_futex_wait(const void *word, uint32_t expected);

/// Wakes one that sleeps on the word.
void linux_futex_wake_one(const void *word);

/// Tells the processor that this is a waiting loop.
static inline void linux_spin_hint(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void linux_close(int fd);

/// An event descriptor that is not readable: the descriptor, or a negative errno value.
int linux_eventfd(void);

/// Makes an event descriptor readable.
void linux_eventfd_raise(int fd);

/// Makes an event descriptor unreadable again. Waits if it is not readable and may wait.
void linux_eventfd_clear(int fd);

bool linux_is_nonblocking(int fd);

/// Waits until the descriptor is readable: 0, or EINTR.
int linux_wait_readable(int fd);

#endif
