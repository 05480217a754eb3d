// What the process may use of the system.
#ifndef SWIFT_RDMA_LINUX_LIMITS_H
#define SWIFT_RDMA_LINUX_LIMITS_H

#include <stdint.h>

/// RLIMIT_MEMLOCK in bytes: how much memory may be pinned. UINT64_MAX where nothing limits it.
uint64_t linux_memlock_limit(void);

#endif
