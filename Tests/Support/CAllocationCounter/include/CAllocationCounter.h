// Counts the allocations of the current thread, for tests that prove that a path makes none.
#ifndef C_ALLOCATION_COUNTER_H
#define C_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

/// How many times this thread called malloc, calloc, realloc, aligned_alloc, memalign or posix_memalign since it
/// began. The count wraps. Linking this target is enough: its functions take the place of the C library's.
uint64_t allocation_count(void);

/// True where nothing is counted: under a sanitizer, which brings an allocator of its own, and without glibc.
bool allocation_count_is_blind(void);

#endif
