// The uverbs node of a kernel RDMA device, and its sysfs files.
#ifndef SWIFT_RDMA_LINUX_UVERBS_H
#define SWIFT_RDMA_LINUX_UVERBS_H

#include <stddef.h>
#include <stdint.h>

/// Opens a character device for reading and writing. Returns the descriptor, or a negative errno value: -ENXIO when the
/// file is not a character device or its device number (dev_t) is not `number`.
int linux_open_node(const char *path, uint64_t number);

/// Checks that an open descriptor is the character device of that number. Returns 0, or a positive errno value: ENXIO
/// when it is another file.
int linux_check_node(int fd, uint64_t number);

/// Calls the ioctl of uverbs (RDMA_VERBS_IOCTL); `request` is a struct ib_uverbs_ioctl_hdr. Returns 0, or a positive
/// errno value.
int linux_uverbs_ioctl(int fd, void *request);

/// Executes a command of uverbs by write(2). Returns 0, or a positive errno value.
int linux_uverbs_write(int fd, const void *request, size_t size);

/// Calls write(2) directly, for a doorbell. Returns the number of bytes written, or -1 and sets errno.
long linux_write(int fd, const void *bytes, size_t count) __asm__("write");

/// Reads the beginning of a small file, and terminates it with a zero in place of a final newline. Returns the number
/// of bytes before the zero, or a negative errno value.
int linux_read_line(const char *path, char *line, size_t capacity);

#endif
