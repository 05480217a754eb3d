// Barriers and stores for memory that a device accesses by DMA, and for its registers. Inline, because the data path
// uses them.
#ifndef SWIFT_RDMA_LINUX_DEVICE_H
#define SWIFT_RDMA_LINUX_DEVICE_H

#include <stdint.h>

// always_inline: a call would cost more than the instruction, and the compilers of Swift and C decide differently.
#define LINUX_DEVICE_INLINE static inline __attribute__((always_inline))

/// Orders stores to memory for the device: stores before the barrier are visible to it before stores after the barrier.
/// x86 keeps the order of stores, so a compiler barrier is sufficient there.
LINUX_DEVICE_INLINE void linux_barrier_to_device(void)
{
#if defined(__aarch64__)
	__asm__ volatile("dsb st" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/// Orders loads from memory that the device writes: loads before the barrier are performed before loads after it.
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

/// Orders stores to memory and to write-combining registers before later stores to a write-combining register, and
/// flushes the write-combining buffers.
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

/// Stores 8 bytes with one instruction, in the byte order of `value`.
LINUX_DEVICE_INLINE void linux_store_to_device(void *address, uint64_t value)
{
	*(volatile uint64_t *)address = value;
}

/// Stores 4 bytes with one instruction, in the byte order of `value`.
LINUX_DEVICE_INLINE void linux_store_word_to_device(void *address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/// Copies 64 bytes with 8 stores, in the order of their addresses.
LINUX_DEVICE_INLINE void linux_copy_to_device(void *address, const void *bytes)
{
	volatile uint64_t *target = (volatile uint64_t *)address;
	const uint64_t *source = (const uint64_t *)bytes;
	int index;

	for (index = 0; index < 8; index++)
		target[index] = source[index];
}

/// Loads a byte that the device may write at any time.
LINUX_DEVICE_INLINE uint8_t linux_load_byte(const void *address) { return *(const volatile uint8_t *)address; }

/// Loads 8 bytes that the device may write at any time, with one instruction. `address` is a multiple of 8.
LINUX_DEVICE_INLINE uint64_t linux_load_double_word(const void *address) { return *(const volatile uint64_t *)address; }

#endif
