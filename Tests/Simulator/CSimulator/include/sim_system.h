// What the simulator asks of the real system, past the functions that the preloaded library puts in front of it.
#ifndef SWIFT_RDMA_SIM_SYSTEM_H
#define SWIFT_RDMA_SIM_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim_calls.h"

/// One lock for everything: commands, the data path, events. Not recursive.
void sim_lock(void);
void sim_unlock(void);

/// An index that the program changes at the same time: what was written before it is seen after it.
static inline uint32_t sim_load(const uint32_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
static inline void sim_store(uint32_t *place, uint32_t value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }

/// A descriptor of a file that exists in memory alone, so large that no queue ends it; or a negative errno value.
int sim_memory_file(void);
/// A view of its bytes for the simulator itself, or null.
void *sim_view(int fd, uint64_t offset, size_t size);
void sim_end_view(void *address, size_t size);

/// A descriptor that is readable while its count is not 0; or a negative errno value.
int sim_counter(void);
void sim_count_up(int fd);
void sim_count_down(int fd);

/// close(2) of a descriptor that the program does not know.
void sim_discard(int fd);

/// Which descriptors are the simulator's, told without a lock.
void sim_own(int fd, bool owned);
bool sim_owns(int fd);

/// Whether these bytes are mapped and may be read, and written where asked for.
bool sim_is_mapped(uint64_t address, uint64_t size, bool writable);

/// From now on there is a tree that stands for sysfs. The preloaded library wants one; a test that has the simulator
/// linked in does not, as SYSFS_PATH is there for the whole process.
void sim_sysfs_enable(void);
/// A file of the tree, with the directories above it. The tree is made with the first file, named by SYSFS_PATH, and
/// removed with the process.
void sim_sysfs_file(const char *path, const char *text);
/// The tree is that of a port on a wire, in the port's directory, and whoever has made the wire removes it.
void sim_sysfs_place(const char *wire, uint16_t lid);
/// Removes everything from the tree.
void sim_sysfs_clear(void);

/// Starts a thread that calls sim_run_freely until it answers a negative number. False when there is none.
bool sim_start_thread(int device);
/// Implemented in Swift: lets the device run. How long the thread may rest then, in nanoseconds, or until something can
/// be read from `wire`, where that is not negative; a negative number when nobody has the device open.
int64_t sim_run_freely(int device, int *wire);

/// From now on each store to this page calls sim_stored. `alias`: the simulator's own view of the same bytes.
void sim_trap(void *address, const struct sim_mapping *mapping);
/// The program unmaps these bytes.
void sim_untrap(void *address, size_t length);

#endif
