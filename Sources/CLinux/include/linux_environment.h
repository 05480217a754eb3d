// What the process was started with, and its descriptors.
#ifndef SWIFT_RDMA_LINUX_ENVIRONMENT_H
#define SWIFT_RDMA_LINUX_ENVIRONMENT_H

#include <stdint.h>

/// Whether the process has more privileges than its caller (AT_SECURE): set-user-ID, set-group-ID, file capabilities.
int linux_is_privileged(void);

/// Null also when the process runs with raised privileges (AT_SECURE).
const char *linux_getenv(const char *name);

uint32_t linux_effective_uid(void);

#endif
