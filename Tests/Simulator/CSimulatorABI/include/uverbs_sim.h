// A simulated RDMA device, from the side of a test: make one, let it run, see what it refused, make it fail.
//
// Under `LD_PRELOAD=libuverbs-sim.so` the environment variable UVERBS_SIM holds such a description, and the device
// is there before main(). A test program finds these functions with uverbs_sim_load, as libuverbs-sim.so is only there
// when it was preloaded; a test that has the simulator linked in calls them. All may be called by any thread.
#ifndef SWIFT_RDMA_UVERBS_SIM_H
#define SWIFT_RDMA_UVERBS_SIM_H

#include <stdint.h>

/// Makes a device. Its number, from 0; or a negative errno value, EINVAL for a word that is none of these:
///
/// | word            | meaning |
/// |-----------------|---------|
/// | `hfi1` `mlx5`   | the kind of device; the first word |
/// | `write`         | the kernel has no ioctl: every command by write(2) |
/// | `cqe0`          | mlx5: completions carry numbers in place of the user's indexes (cqe_version 0) |
/// | `static`        | mlx5: a kernel without UAR objects; pages are mapped by their index |
/// | `roce`          | mlx5: the port is Ethernet |
/// | `trap`          | mlx5: the device runs at each store to a doorbell page, and keeps a log of them |
/// | `abi=N`         | the kernel's driver has that ABI version, which a library may refuse |
/// | `free`          | a thread lets the device run while it is open, for programs that do not call uverbs_sim_step |
/// | `wire=DIR`      | the port is on the wire in that directory, with a LID of its own, beside the devices of other processes or of this one; who has made the directory removes it |
///
/// Words are parted by commas or spaces. Other errors: those of mkdir(2) in the wire's directory, ENAMETOOLONG when its
/// name is longer than about 90 bytes.
int uverbs_sim_create(const char *description);

/// Removes every device. What is still open answers EIO.
void uverbs_sim_remove_all(void);

/// Lets a device run until it has nothing to do: it takes what has come over the wire, and carries out what is posted. How
/// many work requests it has carried out.
int uverbs_sim_step(int device);

/// Why the last call that was refused was: a sentence, or "" when none was; null without such a device. It changes
/// with the next refusal.
const char *uverbs_sim_refusal(int device);
/// How many calls were refused since the device was made, or since the last uverbs_sim_forgive.
int uverbs_sim_refusals(int device);
/// Forgets the refusals.
void uverbs_sim_forgive(int device);

/// A store to a doorbell page, as the program did it.
struct uverbs_sim_store {
	/// Number of the page, in the device's own counting.
	uint32_t page;
	/// In bytes, in the page.
	uint32_t offset;
	/// 1, 2, 4, 8, 16, 32 or 64 bytes; 0 when the program has read.
	uint32_t size;
	uint32_t reserved;
	/// The first 8 bytes as they lie in memory; what is not there is 0.
	uint8_t value[8];
};

/// The stores since the last call, oldest first; up to `capacity` of them, the rest is forgotten. Their number. The log
/// has room for 65,536.
int uverbs_sim_stores(int device, struct uverbs_sim_store *stores, int capacity);

/// Makes an asynchronous event (`enum ibv_event_type`) of the object with that number: a queue pair's or shared
/// receive queue's number, a completion queue's handle, a port. 0, or ENOENT.
int uverbs_sim_inject(int device, int event, uint32_t number);

/// The device dies: an event says so, every command answers EIO, nothing is carried out any more.
int uverbs_sim_fail(int device);

/// What a completion says: what a device of this kind would write for it.
struct uverbs_sim_completion {
	/// The work request: a send's or receive's own number in the codec, which is hfi1's wr_id and mlx5's WQE counter.
	uint64_t tag;
	/// `enum ibv_wc_status`, `enum ibv_wc_opcode`.
	uint32_t status, opcode;
	uint32_t byte_length;
	/// Big endian, or the invalidated key.
	uint32_t immediate;
	uint32_t source_queue_pair;
	/// `enum ibv_wc_flags`.
	uint32_t flags;
	uint32_t vendor_error;
	uint16_t partition_key_index, source_lid;
	uint8_t service_level, path_bits, solicited, reserved;
};

/// Writes a completion of a queue pair, as if the device had carried out something. 0, or ENOENT.
int uverbs_sim_complete(int device, uint32_t queue_pair, const struct uverbs_sim_completion *completion);

/// Holds a device, or lets it go. While it is held it carries out nothing, whatever doorbells ring; what it completes is
/// said with uverbs_sim_complete and uverbs_sim_write. 0, or ENOENT.
int uverbs_sim_hold(int device, int held);

/// Memory that program and device share.
enum uverbs_sim_area {
	/// Of a queue pair's number.
	UVERBS_SIM_SENDS, UVERBS_SIM_RECEIVES, UVERBS_SIM_RECORD,
	/// Of a shared receive queue's number.
	UVERBS_SIM_SHARED_RECEIVES, UVERBS_SIM_SHARED_RECORD,
	/// Of a completion queue's handle.
	UVERBS_SIM_COMPLETIONS, UVERBS_SIM_COMPLETION_RECORD,
};

/// Where such memory lies: its size in bytes; 0 when there is none.
uint64_t uverbs_sim_memory(int device, int area, uint32_t number, void **start);

/// mlx5: writes an entry of 128 bytes, or the last 64 of them, into the completion queue that a queue pair has for
/// receives, or for sends, as it is: but for the numbers of the queue pair and the bit that hands the entry over. 0;
/// ENOENT, or ENOSPC when the queue is full.
int uverbs_sim_write(int device, uint32_t queue_pair, int receives, const void *entry);

/// A piece of memory that a request names.
struct uverbs_sim_segment {
	uint64_t address;
	uint32_t length, key;
};

/// A send request as the device understands it.
struct uverbs_sim_request {
	/// hfi1's wr_id, mlx5's number of the first block.
	uint64_t tag;
	/// `enum ibv_wr_opcode`; `enum ibv_send_flags`, hfi1 alone.
	uint32_t opcode, flags;
	/// Big endian, or the key to invalidate.
	uint32_t immediate;
	uint32_t remote_key;
	uint64_t remote_address, compare, swap_or_add;
	/// Where a datagram goes.
	uint32_t queue_pair, queue_key, lid, service_level;
	uint64_t gid[2];
	uint32_t reserved, segment_count;
	struct uverbs_sim_segment segments[16];
};

/// Takes the oldest request that a queue pair has posted and the device has not carried out. 0, or ENOENT.
int uverbs_sim_take(int device, uint32_t queue_pair, struct uverbs_sim_request *request);

/// The functions above, in a program that is not linked with the simulator.
struct uverbs_sim {
	int (*create)(const char *);
	void (*remove_all)(void);
	int (*step)(int);
	const char *(*refusal)(int);
	int (*refusals)(int);
	void (*forgive)(int);
	int (*stores)(int, struct uverbs_sim_store *, int);
	int (*inject)(int, int, uint32_t);
	int (*fail)(int);
	int (*complete)(int, uint32_t, const struct uverbs_sim_completion *);
	int (*hold)(int, int);
	uint64_t (*memory)(int, int, uint32_t, void **);
	int (*write)(int, uint32_t, int, const void *);
	int (*take)(int, uint32_t, struct uverbs_sim_request *);
};

/// Finds them in the preloaded library. Null: it was not preloaded.
const struct uverbs_sim *uverbs_sim_load(void);

#endif
