// What the C library's headers hold as macros, or Swift's Glibc module leaves out.
#ifndef SWIFT_RDMA_CLINUX_H
#define SWIFT_RDMA_CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <sys/auxv.h>

/// errno as a function: Embedded Swift cannot import Glibc.
static inline int linux_errno(void) { return errno; }
static inline void linux_set_errno(int value) { errno = value; }

/// Whether the process has more privileges than its caller: set-user-ID, set-group-ID or file capabilities.
static inline int linux_is_privileged(void) { return getauxval(AT_SECURE) != 0; }

#endif
