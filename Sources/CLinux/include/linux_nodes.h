// Device nodes.
#ifndef SWIFT_RDMA_LINUX_NODES_H
#define SWIFT_RDMA_LINUX_NODES_H

#include <fcntl.h>
#include <stdint.h>

/// Checks that this process may open the file for reading and writing. Returns 0, or the errno value of faccessat(2).
int linux_check_access(const char *path);

/// Duplicates a descriptor, and stores the device and the inode number of its file, which no other file has while the
/// duplicate is open. Returns the duplicate, or a negative errno value.
int linux_hold_file(int fd, uint64_t *device, uint64_t *number);

/// The device number (dev_t) of the device that the descriptor refers to; 0 where it is not a device.
uint64_t linux_device_number(int fd);

#endif
