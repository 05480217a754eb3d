// Memory that a device reads and writes by itself, and its registers: the order of accesses. Inline, because they stand in
// the middle of the data path.
#ifndef SWIFT_RDMA_LINUX_DEVICE_H
#define SWIFT_RDMA_LINUX_DEVICE_H

#include <stdint.h>

// Always: a call would cost more than what it does, and the compilers of Swift and C do not agree on when.
#define LINUX_DEVICE_INLINE static inline __attribute__((always_inline))

/// What was stored to memory before can be seen by the device before what is stored after. x86 keeps the order of stores;
/// the compiler must.
LINUX_DEVICE_INLINE void linux_barrier_to_device(void)
{
#if defined(__aarch64__)
	__asm__ volatile("dsb st" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/// What is loaded after was written by the device no earlier than what was loaded before.
LINUX_DEVICE_INLINE void linux_barrier_from_device(void)
{
#if defined(__x86_64__)
	__asm__ volatile("lfence" ::: "memory");
#elif defined(__aarch64__)
	__asm__ volatile("dsb ld" ::: "memory");
#else
	__sync_synchronize();
#endif
}

/// What was stored before, to memory or to a write-combining register, arrives before what is stored after to a
/// write-combining register; and what such a buffer holds is sent on its way.
LINUX_DEVICE_INLINE void linux_flush_to_device(void)
{
#if defined(__x86_64__)
	__asm__ volatile("sfence" ::: "memory");
#elif defined(__aarch64__)
	__asm__ volatile("dsb st" ::: "memory");
#else
	__sync_synchronize();
#endif
}

/// One store of 8 bytes, as they lie in `value`.
LINUX_DEVICE_INLINE void linux_store_to_device(void *address, uint64_t value)
{
	*(volatile uint64_t *)address = value;
}

/// 64 bytes in 8 stores, in the order of their addresses.
LINUX_DEVICE_INLINE void linux_copy_to_device(void *address, const void *bytes)
{
	volatile uint64_t *target = (volatile uint64_t *)address;
	const uint64_t *source = (const uint64_t *)bytes;
	int index;

	for (index = 0; index < 8; index++)
		target[index] = source[index];
}

/// A byte that the device may write at any time.
LINUX_DEVICE_INLINE uint8_t linux_load_byte(const void *address) { return *(const volatile uint8_t *)address; }

#endif
