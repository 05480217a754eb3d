// The simulator's own system calls, which bypass the functions that the preloaded library interposes.
#ifndef SWIFT_RDMA_SIM_SYSTEM_H
#define SWIFT_RDMA_SIM_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim_calls.h"

/// The lock of all simulated devices: commands, data path, events. Not recursive.
void sim_lock(void);
void sim_unlock(void);

/// Acquire load and release store of an index that the program accesses concurrently.
static inline uint32_t sim_load(const uint32_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
static inline void sim_store(uint32_t *place, uint32_t value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }

/// Creates a sparse memfd that is larger than all queues. Returns a descriptor, or a negative errno value.
int sim_memory_file(void);
/// Maps a range of it for the simulator, or returns null.
void *sim_view(int fd, uint64_t offset, size_t size);
void sim_end_view(void *address, size_t size);

/// A descriptor that is readable while its count is not 0; or a negative errno value.
int sim_counter(void);
void sim_count_up(int fd);
void sim_count_down(int fd);

/// close(2) of a descriptor of the simulator's own.
void sim_discard(int fd);

/// Marks a descriptor as the simulator's, or not. sim_owns returns whether it is. Neither needs the lock.
void sim_own(int fd, bool owned);
bool sim_owns(int fd);

/// Whether these bytes are mapped and readable, and, if `writable`, writable.
bool sim_is_mapped(uint64_t address, uint64_t size, bool writable);

/// Enables the tree that replaces sysfs. The preloaded library needs it; a test that is linked with the simulator does
/// not enable it, because SYSFS_PATH applies to the whole process.
void sim_sysfs_enable(void);
/// Writes a file of the tree, and creates the directories above it. The first file creates the tree and sets SYSFS_PATH
/// to it; the tree is removed at exit.
void sim_sysfs_file(const char *path, const char *text);
/// Places the tree in a port's directory on a wire; the creator of the wire removes it.
void sim_sysfs_place(const char *wire, uint16_t lid);
/// Removes everything from the tree.
void sim_sysfs_clear(void);

/// Starts a thread that calls sim_run_freely until that returns a negative number. Returns false when it cannot be
/// started.
bool sim_start_thread(int device);
/// Implemented in Swift: runs the device. Returns the longest time that the thread may sleep, in nanoseconds, while the
/// descriptor `wire` is not readable (-1: no wire); a negative number when the device is not open.
int64_t sim_run_freely(int device, int *wire);

/// Traps each store to this page: sim_stored is called for it.
void sim_trap(void *address, const struct sim_mapping *mapping);
/// Ends the trapping of pages in these bytes, which the program unmaps.
void sim_untrap(void *address, size_t length);

#endif
