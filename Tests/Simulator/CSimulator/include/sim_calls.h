// What the system calls of a program become when they concern a simulated device. The preloaded library calls these in
// place of the kernel; a test that has the simulator linked in may call them itself. Implemented in Swift.
#ifndef SWIFT_RDMA_SIM_CALLS_H
#define SWIFT_RDMA_SIM_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// A device's number from the path of its node, or -1: not ours.
int sim_find_node(const char *path);
/// What stat(2) tells of the node in st_rdev.
uint64_t sim_node_number(int device);
/// open(2): a descriptor, or a negative errno value.
int sim_open(int device);
/// The device whose node this descriptor has open, or -1: it is one of an event file's.
int sim_device_of(int fd);
/// ioctl(2) and write(2): 0 or a positive errno value.
int sim_ioctl(int fd, unsigned long request, void *argument);
int sim_write(int fd, const void *command, size_t size);
/// read(2) of an event: its size, 0 when there is none yet, or a negative errno value.
ssize_t sim_read(int fd, void *buffer, size_t size);
/// Before close(2): takes with it what the descriptor stands for.
void sim_close(int fd);

/// What becomes of a mapping that the kernel would allow.
struct sim_mapping {
	/// Stores to it are trapped.
	bool trapped;
	int device;
	uint32_t page;
};

/// mmap(2): 0 or a positive errno value.
int sim_mmap(int fd, size_t length, int protection, int flags, uint64_t offset, struct sim_mapping *mapping);

/// A store to a doorbell page that was trapped, and is done.
void sim_stored(int device, uint32_t page, uint32_t offset, uint32_t size, const uint8_t *bytes);

#endif
