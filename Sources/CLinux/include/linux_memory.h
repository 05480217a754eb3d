// The memory of this process.
#ifndef SWIFT_RDMA_LINUX_MEMORY_H
#define SWIFT_RDMA_LINUX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Checks that these bytes are mapped, and may be read and, with `writable`, written. Returns 0, or EFAULT. Does not
/// access them. Where /proc/self/maps cannot be read, it checks only that they are mapped.
int linux_check_memory(const void *address, size_t size, bool writable);

/// Makes the pages of these bytes present, for reading or, with `writable`, for writing (MADV_POPULATE_READ and
/// MADV_POPULATE_WRITE of madvise(2); before Linux 5.14, it checks only that they are mapped). Returns 0, or EFAULT when
/// they are not mapped or may not be accessed so.
int linux_populate_memory(void *address, size_t size, bool writable);

/// Size of a file in bytes, of a dma-buf too: lseek(2) to its end and back. Returns a negative errno value on failure.
int64_t linux_file_size(int fd);

/// Size of a page in bytes.
int linux_page_size(void);

/// Maps zeroed private pages for a device to read and write, which a child of fork(2) does not inherit. Returns null
/// and sets errno on failure.
void *linux_map_memory(size_t size);

/// Maps registers of a device from its node, for writing; a child of fork(2) does not inherit them. Returns null and sets
/// errno on failure.
void *linux_map_registers(int fd, uint64_t offset, size_t size);

/// Maps part of a file, shared and readable. Returns null and sets errno on failure.
void *linux_map_readable(int fd, uint64_t offset, size_t size);

/// Maps part of a file, shared, readable and writable; a child of fork(2) does not inherit it. Returns null and sets
/// errno on failure.
void *linux_map_file(int fd, uint64_t offset, size_t size);

/// The same with PROT_READ and PROT_WRITE as in `protection`; other bits are EINVAL.
void *linux_map_node(int fd, uint64_t offset, size_t size, int protection);

/// Unmaps memory that a function of this file mapped.
void linux_unmap(void *address, size_t size);

/// Creates a file in memory (memfd_create(2)). Returns the descriptor, or a negative errno value.
int linux_memory_file(const char *name);
/// Sets the size of a file (ftruncate(2)). Returns 0, or a positive errno value.
int linux_resize_file(int fd, uint64_t size);

#endif
