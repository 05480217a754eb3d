// The system calls on a simulated device. The preloaded library calls these functions in place of the kernel; a test
// that is linked with the simulator may call them directly. Implemented in Swift.
#ifndef SWIFT_RDMA_SIM_CALLS_H
#define SWIFT_RDMA_SIM_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// The number of /dev/infiniband/rdma_cm, in place of a device's.
enum { SIM_NODE_MANAGER = 0x7FFF };

/// A device's number from the path of its node, SIM_NODE_MANAGER, or -1: not a simulated device.
int sim_find_node(const char *path);
/// st_rdev of the node, for stat(2).
uint64_t sim_node_number(int device);
/// open(2): a descriptor, or a negative errno value.
int sim_open(int device);
/// open(2) of /dev/infiniband/rdma_cm in a network namespace that has this device alone, with the rdma_cm ports of a host
/// of its own: for tests with several devices in one process. Called before any identifier uses the device.
int sim_open_manager(int device);
/// The device whose node this descriptor has open, or -1, as for the descriptor of an event file.
int sim_device_of(int fd);
/// A number of the open file behind a descriptor, which is never reused; 0: not a simulated device's.
uint64_t sim_serial(int fd);
/// ioctl(2) and write(2): 0 or a positive errno value. EAGAIN of write(2): the command waits until poll(2) reports the
/// descriptor as readable, unless it is nonblocking.
int sim_ioctl(int fd, unsigned long request, void *argument);
int sim_write(int fd, const void *command, size_t size);
/// read(2) of an event: its size, 0 when none is waiting, or a negative errno value.
ssize_t sim_read(int fd, void *buffer, size_t size);
/// Called before close(2): closes the context and destroys its objects.
void sim_close(int fd);
/// Closes the event files of an open device, whose program does not close them: for a test that plays many programs.
void sim_close_events(int fd);

/// A mapping that the kernel would allow.
struct sim_mapping {
	/// Stores to it are trapped.
	bool trapped;
	int device;
	uint32_t page;
	/// The offset in the descriptor's file, which may differ from that of the call.
	uint64_t offset;
};

/// mmap(2): 0 or a positive errno value.
int sim_mmap(int fd, size_t length, int protection, int flags, uint64_t offset, struct sim_mapping *mapping);

/// Called after a trapped store to a UAR page was executed.
void sim_stored(int device, uint32_t page, uint32_t offset, uint32_t size, const uint8_t *bytes);

#endif
