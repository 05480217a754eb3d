// The memory of this process.
#ifndef SWIFT_RDMA_LINUX_MEMORY_H
#define SWIFT_RDMA_LINUX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/// Whether these bytes are mapped and may be read (and written, where asked for): 0, or EFAULT. Touches nothing. Says 0
/// where the kernel does not tell.
int linux_check_memory(const void *address, size_t size, bool writable);

#endif
