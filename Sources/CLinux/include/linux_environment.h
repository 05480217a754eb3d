// The environment, privileges and arguments of the process.
#ifndef SWIFT_RDMA_LINUX_ENVIRONMENT_H
#define SWIFT_RDMA_LINUX_ENVIRONMENT_H

#include <stddef.h>
#include <stdint.h>

/// Whether the process has more privileges than its caller (AT_SECURE): set-user-ID, set-group-ID, file capabilities.
int linux_is_privileged(void);

/// The value of an environment variable (secure_getenv(3)); null when it is not set, and always null in a process with
/// raised privileges (AT_SECURE).
const char *linux_getenv(const char *name);
/// Reads a regular file into `bytes`. Returns the number of bytes, or a negative errno value: -EINVAL when it is not a
/// regular file, -EFBIG when it has more than `capacity` bytes.
long linux_read_file(const char *path, void *bytes, size_t capacity);

/// Whether the file has capabilities (capabilities(7)), with which the kernel raises the privileges of a process that runs it.
int linux_has_file_capabilities(const char *path);

/// The effective user ID, geteuid(2).
uint32_t linux_effective_uid(void);

/// The number of the program's arguments, its name included. Works without /proc.
int linux_argument_count(void);
/// The argument at `index`, from 0; null outside the range. It lives as long as the process.
const char *linux_argument(int index);

/// The path with which this program can be started again: /proc/self/exe, or, where /proc is not mounted, the path that
/// was passed to execve(2), which may be relative. It lives as long as the process. Null if the kernel does not report
/// it.
const char *linux_program_path(void);

#endif
