// The memory of this process.
#ifndef SWIFT_RDMA_LINUX_MEMORY_H
#define SWIFT_RDMA_LINUX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Whether these bytes are mapped and may be read (and written, where asked for): 0, or EFAULT. Touches nothing. Says 0
/// where the kernel does not tell.
int linux_check_memory(const void *address, size_t size, bool writable);

/// Size of a page in bytes.
int linux_page_size(void);

/// Zeroed pages of this process alone, for a device to read and write, which a child of fork(2) does not get. Null and
/// errno when there are none.
void *linux_map_memory(size_t size);

/// Maps registers of a device from its node, to be written. Null and errno when that fails.
void *linux_map_registers(int fd, uint64_t offset, size_t size);

#endif
