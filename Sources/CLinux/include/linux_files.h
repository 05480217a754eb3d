// Reading and writing descriptors.
#ifndef SWIFT_RDMA_LINUX_FILES_H
#define SWIFT_RDMA_LINUX_FILES_H

#include <stddef.h>

/// write(2) itself, without a function in between: the number of bytes written, or -1 and errno.
long linux_write(int fd, const void *bytes, size_t count) __asm__("write");

#endif
