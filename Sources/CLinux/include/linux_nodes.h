// Device nodes.
#ifndef SWIFT_RDMA_LINUX_NODES_H
#define SWIFT_RDMA_LINUX_NODES_H

#include <stdint.h>

/// Whether this process may open the file for reading and writing: 0, or the errno value of faccessat(2).
int linux_check_access(const char *path);

/// Device number of what the descriptor refers to, as dev_t holds it; 0 where that is no device.
uint64_t linux_device_number(int fd);

#endif
