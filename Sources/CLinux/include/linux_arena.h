// Memory of this process that other processes can map, and of which a child of fork(2) has a copy.
#ifndef SWIFT_RDMA_LINUX_ARENA_H
#define SWIFT_RDMA_LINUX_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Creates a memory file of this size (memfd_create(2)), whose size is fixed, and maps it, shared. No memory is reserved. A
/// child of fork(2) gets a private mapping instead: what it writes stays its own, and pages that it has not written show
/// what this process writes later. Returns 0, or a positive errno value: EFBIG when RLIMIT_FSIZE is less than the size;
/// ENOMEM also when there are 1024.
int linux_make_arena(const char *name, size_t size, int *fd, void **address);

/// Unmaps an arena, and closes its descriptor.
void linux_close_arena(int fd, void *address, size_t size);

/// Frees the memory of pages of an arena, which then read as zeros; `address` is that of the first one.
void linux_discard(int fd, uint64_t offset, void *address, size_t size);

/// Whether the kernel promises no more memory than it has (vm.overcommit_memory=2), so that an access to memory that was
/// not reserved can fail.
bool linux_commits_strictly(void);

#endif
