// The interface of a simulated RDMA device for tests: create a device, run it, read its refusals, make it fail.
//
// With `LD_PRELOAD=libuverbs-sim.so`, the environment variable UVERBS_SIM holds a description (see uverbs_sim_create),
// and the device exists before main(). A program into which the library was preloaded finds these functions with
// uverbs_sim_load; a test that is linked with the simulator calls them directly. Any thread may call them.
#ifndef SWIFT_RDMA_UVERBS_SIM_H
#define SWIFT_RDMA_UVERBS_SIM_H

#include <stdint.h>

/// Creates a device. Returns its number, from 0, or a negative errno value: EINVAL for a word that is not in the table.
///
/// | word            | meaning |
/// |-----------------|---------|
/// | `hfi1` `mlx5` `cxgb4` | the type of device; the first word |
/// | `write`         | the kernel has no ioctl: every command by write(2) |
/// | `cqe0`          | mlx5: cqe_version 0: CQEs have the QPN in place of the user index |
/// | `static`        | mlx5: a kernel without UAR objects: UAR pages are mapped by index |
/// | `roce`          | mlx5: the port is Ethernet |
/// | `trap`          | mlx5: the device runs at each store to a UAR page, and keeps a log of them |
/// | `t4` `t5` `t6`  | cxgb4: the generation of the adapter; T5 without such a word |
/// | `cqe32`         | cxgb4: a kernel driver from before CQEs of 64 bytes, which has no shared receive queues, WRITE_CMPL or immediate data either |
/// | `onchip`        | cxgb4 t4: send queues are in the adapter's memory |
/// | `windows`       | cxgb4: a kernel driver that allocates memory windows, as that of Linux 6.1 does not |
/// | `dense`         | cxgb4: 64 queues share a doorbell page, and these queues have no write-combining doorbell |
/// | `reorder`       | cxgb4: the CQE of a READ is written after those of later requests |
/// | `notrap`        | cxgb4: stores to doorbell pages are not trapped (they are by default, on x86) |
/// | `abi=N`         | the kernel's driver has that ABI version, which a library may refuse |
/// | `free`          | a thread runs the device while it is open, for programs that do not call uverbs_sim_step |
/// | `wire=DIR`      | the port is on the wire in that directory, together with the devices of other processes or of this one, and has a LID of its own; the creator of the directory removes it |
///
/// Words are separated by commas or spaces. Other errors: those of mkdir(2) in the wire's directory, ENAMETOOLONG when
/// its name is longer than about 90 bytes.
int uverbs_sim_create(const char *description);

/// Removes every device. Open descriptors fail with EIO.
void uverbs_sim_remove_all(void);

/// Runs a device until no queue pair can make progress: it receives the messages on the wire and executes the posted
/// work requests. Returns the number of executed work requests.
int uverbs_sim_step(int device);

/// The reason of the last refusal; "" when there was none, null without such a device. Valid until the next refusal.
const char *uverbs_sim_refusal(int device);
/// The number of refusals since the device was created, or since the last uverbs_sim_forgive.
int uverbs_sim_refusals(int device);
/// Clears the reason and the number of refusals.
void uverbs_sim_forgive(int device);

/// A store to a UAR page, or to a doorbell page.
struct uverbs_sim_store {
	/// UAR index; cxgb4: number of the mapping.
	uint32_t page;
	/// Offset in the page, in bytes.
	uint32_t offset;
	/// 1, 2, 4, 8, 16, 32 or 64 bytes; 0: a load.
	uint32_t size;
	uint32_t reserved;
	/// The first 8 bytes in memory order, padded with 0.
	uint8_t value[8];
};

/// Copies the stores since the last call, oldest first, up to `capacity`; the rest is dropped. Returns their number.
/// The log has room for 65,536.
int uverbs_sim_stores(int device, struct uverbs_sim_store *stores, int capacity);

/// Raises an asynchronous event (`enum ibv_event_type`) of the object with that number: a QPN, a shared receive queue's
/// number, a completion queue's handle, a port. Returns 0, or ENOENT.
int uverbs_sim_inject(int device, int event, uint32_t number);

/// Makes the device fail: it raises IBV_EVENT_DEVICE_FATAL, every command fails with EIO, and no work request is
/// executed. Returns 0, or ENOENT.
int uverbs_sim_fail(int device);

/// iWARP: moves a queue pair to RTS, connected to queue pair `peer` of the port with LID `port` (0: the own port), as the
/// kernel's connection manager does; the peer needs a call of its own. One side is the initiator. Returns 0, ENOENT,
/// EINVAL when the queue pair is not idle or was connected before, or EOPNOTSUPP when the device is not iWARP.
int uverbs_sim_connect(int device, uint32_t queue_pair, uint16_t port, uint32_t peer, int initiates);

/// How a connection ends.
enum uverbs_sim_end {
	/// Orderly: both queue pairs become idle.
	UVERBS_SIM_CLOSE,
	/// By an RDMAP Terminate message, or by a reset: both queue pairs enter ERR.
	UVERBS_SIM_TERMINATE, UVERBS_SIM_ABORT,
};

/// iWARP: ends the connection of a queue pair. Returns 0, ENOENT, or ENOTCONN.
int uverbs_sim_disconnect(int device, uint32_t queue_pair, int end);

/// cxgb4 t4: sets `db_off` of the device's status page, or clears it: while it is set the kernel collects doorbells by
/// MODIFY_QP, and the adapter's are refused. Returns 0, ENOENT, or EOPNOTSUPP.
int uverbs_sim_stop_doorbells(int device, int stopped);

/// A completion, which the device writes as a CQE in its own format.
struct uverbs_sim_completion {
	/// The work request: hfi1's wr_id, mlx5's WQE counter, cxgb4's index in the send queue or, with a shared receive
	/// queue, in the adapter's table (unused for other receives).
	uint64_t tag;
	/// `enum ibv_wc_status`, `enum ibv_wc_opcode`.
	uint32_t status, opcode;
	uint32_t byte_length;
	/// Immediate data, big endian; or the invalidated rkey.
	uint32_t immediate;
	uint32_t source_queue_pair;
	/// `enum ibv_wc_flags`.
	uint32_t flags;
	/// cxgb4: a status code in place of that of `status`, unless 0.
	uint32_t vendor_error;
	uint16_t partition_key_index, source_lid;
	uint8_t service_level, path_bits, solicited, reserved;
};

/// Writes a completion of a queue pair, as if the device had executed a work request. Returns 0, or ENOENT.
int uverbs_sim_complete(int device, uint32_t queue_pair, const struct uverbs_sim_completion *completion);

/// Holds a device, or releases it. While it is held it executes no work requests and ignores doorbells; the test writes
/// completions with uverbs_sim_complete and uverbs_sim_write. Returns 0, or ENOENT.
int uverbs_sim_hold(int device, int held);

/// An area of memory that program and device share.
enum uverbs_sim_area {
	/// Of the queue pair with that QPN.
	UVERBS_SIM_SENDS, UVERBS_SIM_RECEIVES, UVERBS_SIM_RECORD,
	/// Of the shared receive queue with that number.
	UVERBS_SIM_SHARED_RECEIVES, UVERBS_SIM_SHARED_RECORD,
	/// Of the completion queue with that handle.
	UVERBS_SIM_COMPLETIONS, UVERBS_SIM_COMPLETION_RECORD,
};

/// Sets `start` to the address of such memory. Returns its size in bytes; 0 when there is none.
uint64_t uverbs_sim_memory(int device, int area, uint32_t number, void **start);

/// mlx5: writes a CQE of 128 bytes, or the last 64 of them, to the completion queue of a queue pair's receives or
/// sends, unchanged except for the queue pair's numbers and the owner bit. cxgb4: a CQE of 64 bytes, or the first 24 and
/// the last 8 of them, unchanged except for the QPN and the generation. Returns 0, ENOENT, or ENOSPC when the queue is
/// full.
int uverbs_sim_write(int device, uint32_t queue_pair, int receives, const void *entry);

/// A scatter/gather element.
struct uverbs_sim_sge {
	uint64_t address;
	uint32_t length, key;
};

/// A send work request as the device decodes it.
struct uverbs_sim_request {
	/// hfi1's wr_id, mlx5's index of the first WQEBB, cxgb4's index (bits 0 to 15).
	uint64_t tag;
	/// `enum ibv_wr_opcode`; `enum ibv_send_flags`, hfi1 alone.
	uint32_t opcode, flags;
	/// Immediate data, big endian; or the rkey to invalidate.
	uint32_t immediate;
	uint32_t remote_key;
	uint64_t remote_address, compare, swap_or_add;
	/// The destination of a datagram.
	uint32_t queue_pair, queue_key, lid, service_level;
	uint64_t gid[2];
	uint32_t reserved, sge_count;
	struct uverbs_sim_sge sges[16];
};

/// Removes the WQE at the head of a queue pair's send queue and returns it in `request`. Returns 0, or ENOENT.
int uverbs_sim_take(int device, uint32_t queue_pair, struct uverbs_sim_request *request);

/// The functions above, for a program that is not linked with the simulator.
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
	int (*connect)(int, uint32_t, uint16_t, uint32_t, int);
	int (*disconnect)(int, uint32_t, int);
	int (*stop_doorbells)(int, int);
};

/// Finds the functions in the preloaded library. Returns null if it was not preloaded.
const struct uverbs_sim *uverbs_sim_load(void);

#endif
