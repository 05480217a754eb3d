// Waiting: futexes and event descriptors.
//
// Like every header of this target that Swift imports, it uses no type of the C library: two modules that include the C
// library with different feature macros cannot be imported together.
#ifndef SWIFT_RDMA_LINUX_WAIT_H
#define SWIFT_RDMA_LINUX_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/// Sleeps while *word is `expected`, until woken; it may also return early (futex(2), FUTEX_WAIT).
void linux_futex_wait(const void *word, uint32_t expected);

/// Wakes one thread that sleeps on the word (FUTEX_WAKE).
void linux_futex_wake_one(const void *word);

/// Hints to the processor that this is a spin loop.
static inline void linux_spin_hint(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/// Hints to the processor that the cache line at this address is written soon. The line has to be mapped; nothing is accessed.
static inline void linux_prefetch_to_write(const void *address)
{
#if defined(__x86_64__)
	/* Processors without the instruction ignore it. */
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)address));
#else
	__builtin_prefetch(address, 1, 3);
#endif
}

/// Closes a descriptor (close(2)).
void linux_close(int fd);

/// Creates a blocking event descriptor (eventfd(2)), which is not readable. Returns it, or a negative errno value.
int linux_eventfd(void);

/// Makes an event descriptor readable.
void linux_eventfd_raise(int fd);

/// Reads an event descriptor, so that it is not readable. Blocks while it is not readable, unless it has O_NONBLOCK.
void linux_eventfd_clear(int fd);

/// Creates an event descriptor that counts (EFD_SEMAPHORE): each read(2) of 8 bytes takes one, and blocks while there is
/// none, unless `nonblocking`. linux_eventfd_raise adds one. Returns the descriptor, or a negative errno value.
int linux_counter(bool nonblocking);

/// Takes one from a counter; never blocks. Returns whether it did: not from an empty counter, and before Linux 5.8 only from
/// one with O_NONBLOCK.
bool linux_count_down(int fd);

/// Whether the descriptor has O_NONBLOCK.
bool linux_is_nonblocking(int fd);

/// Waits until the descriptor is readable. Returns 0, or the errno value of poll(2): EINTR after a signal.
int linux_wait_readable(int fd);

#endif
