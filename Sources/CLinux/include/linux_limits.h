// Resource limits of the process (getrlimit(2)).
#ifndef SWIFT_RDMA_LINUX_LIMITS_H
#define SWIFT_RDMA_LINUX_LIMITS_H

#include <stdint.h>

/// The memory that this process may pin, in bytes: RLIMIT_MEMLOCK. UINT64_MAX where it is unlimited, as for a process
/// with CAP_IPC_LOCK in the initial user namespace.
uint64_t linux_memlock_limit(void);

/// The number of descriptors that this process may have open: RLIMIT_NOFILE. UINT64_MAX where it is unlimited.
uint64_t linux_descriptor_limit(void);

#endif
