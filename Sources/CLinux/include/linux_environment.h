// What the process was started with, and its descriptors.
#ifndef SWIFT_RDMA_LINUX_ENVIRONMENT_H
#define SWIFT_RDMA_LINUX_ENVIRONMENT_H

#include <stdint.h>

/// Null also when the process runs with raised privileges (AT_SECURE).
const char *linux_getenv(const char *name);

uint32_t linux_effective_uid(void);

#endif
