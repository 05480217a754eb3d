// Functions for macros of the C library's headers, and for functions that Swift's Glibc module does not import.
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

/// The name of an errno value, such as "EMFILE" (strerrorname_np(3)), and its description (strerrordesc_np(3)).
const char *linux_error_name(int error);
const char *linux_error_text(int error);

#endif
