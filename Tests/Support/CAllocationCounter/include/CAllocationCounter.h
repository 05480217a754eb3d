// Counts the allocations of the current thread, for tests that check that a code path does not allocate.
#ifndef C_ALLOCATION_COUNTER_H
#define C_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

/// The number of calls of malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign by this thread. It wraps.
/// Linking this target is sufficient: its functions replace those of the C library.
uint64_t allocation_count(void);

/// True if calls are not counted: under a sanitizer, which has its own allocator, and without glibc.
bool allocation_count_is_blind(void);

#endif
