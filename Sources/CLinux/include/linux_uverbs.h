// The node of a kernel RDMA device, and the files in which the kernel describes it.
#ifndef SWIFT_RDMA_LINUX_UVERBS_H
#define SWIFT_RDMA_LINUX_UVERBS_H

#include <stddef.h>
#include <stdint.h>

/// Opens a character device for reading and writing. `number` is the device number that it must have, as dev_t holds
/// it: -ENXIO for another, or for what is no character device. The descriptor, or a negative errno value.
int linux_open_node(const char *path, uint64_t number);

/// The one ioctl of uverbs (RDMA_VERBS_IOCTL); `request` is a struct ib_uverbs_ioctl_hdr. 0, or a positive errno value.
int linux_uverbs_ioctl(int fd, void *request);

/// A command of uverbs by write(2). 0, or a positive errno value.
int linux_uverbs_write(int fd, const void *request, size_t size);

/// write(2) itself, for a doorbell: no function in between. The number of bytes written, or -1 and errno.
long linux_write(int fd, const void *bytes, size_t count) __asm__("write");

/// Reads the beginning of a small file and ends it with a zero, in place of the last line's end: how many bytes came
/// before, or a negative errno value.
int linux_read_line(const char *path, char *line, size_t capacity);

#endif
