// What the C library's headers hold as macros, or Swift's Glibc module leaves out.
#ifndef SWIFT_RDMA_CLINUX_H
#define SWIFT_RDMA_CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>

/// errno as a function: Embedded Swift cannot import Glibc.
static inline int linux_errno(void) { return errno; }
static inline void linux_set_errno(int value) { errno = value; }

#endif
