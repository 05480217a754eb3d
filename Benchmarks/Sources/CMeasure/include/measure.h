// What the benchmark programs in C have in common.
#ifndef SWIFT_RDMA_BENCHMARKS_MEASURE_H
#define SWIFT_RDMA_BENCHMARKS_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// The time in nanoseconds of CLOCK_MONOTONIC.
uint64_t now(void);

/// Orders times, for qsort(3).
int compare_times(const void *one, const void *other);

/// Runs the calling process on that processor only. Ends the program where that is not possible.
void pin(int core);

/// Zeroed memory that the peer has, too. Ends the program where there is none.
void *shared_memory(size_t size);

/// Forks a peer, which ends with its parent. Returns 0 in the peer, as fork(2); ends the program where it cannot fork.
pid_t fork_peer(void);

#endif
