// Whether this process is a child of fork(2) that has copied the state of its parent.
#ifndef SWIFT_RDMA_LINUX_FORK_H
#define SWIFT_RDMA_LINUX_FORK_H

#include <stdbool.h>
#include <stdint.h>

/// 1 in the process that has called linux_mark_process, 0 in its children. Use the functions below.
extern const volatile uint32_t *linux_process_mark;

/// Marks this process as the one that has opened devices. Later calls do nothing.
void linux_mark_process(void);

/// Whether a parent of this process had called linux_mark_process before fork(2). One load after the first call.
static inline bool linux_is_forked_child(void) { return *linux_process_mark == 0; }

#endif
