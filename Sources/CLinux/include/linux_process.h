// The memory of other processes of the same user (process_vm_readv(2)).
#ifndef SWIFT_RDMA_LINUX_PROCESS_H
#define SWIFT_RDMA_LINUX_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The ID of this process, as getpid(2).
int linux_process(void);

/// Opens the process at the other end of a connection: for the side that connected, the one that called listen(2). Returns a
/// descriptor that is readable when the process has ended (pidfd_open(2)), or a negative errno value: ENOSYS before Linux 5.3,
/// ESRCH when it is in another PID namespace (before Linux 6.5).
int linux_open_process(int connection);

/// Whether the process has ended to which such a descriptor refers.
bool linux_process_has_ended(int process);

/// Reads memory of a process. Returns 0, or a positive errno value: EPERM when this process may not trace it
/// (ptrace(2), kernel.yama.ptrace_scope) or a sandbox forbids the call; EFAULT; ESRCH.
int linux_read_process(int process, uint64_t address, void *bytes, size_t count);

/// Copies between `count` (1 to 32) parts of memory of this process (`struct iovec`) and memory of another process; with
/// `writes` to it, where the last word is written after the others. Returns whether all bytes were copied.
bool linux_copy_process(int process, const void *parts, int count, uint64_t address, bool writes);

#endif
