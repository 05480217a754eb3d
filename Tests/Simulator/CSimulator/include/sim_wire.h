// The wire between simulated devices of several processes: a directory, in which each port has one of its own, named by
// its LID from 1 on. A port that is open has a datagram socket there, `wire`; what a message carries goes beside it as a
// descriptor of a memory file, so that a message of any size is one datagram.
#ifndef SWIFT_RDMA_SIM_WIRE_H
#define SWIFT_RDMA_SIM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// What `version` must be: every change of the struct or of what it means is another one.
enum { SIM_WIRE_VERSION = 1 };

enum sim_wire_kind {
	/// Of a reliable connection: an answer is to come back.
	SIM_WIRE_REQUEST = 1,
	SIM_WIRE_ANSWER = 2,
	/// Of an unreliable connection.
	SIM_WIRE_UNRELIABLE = 3,
	SIM_WIRE_DATAGRAM = 4,
};

enum sim_wire_flags {
	SIM_WIRE_IMMEDIATE = 1,
	SIM_WIRE_INVALIDATES = 2,
	SIM_WIRE_SOLICITED = 4,
	SIM_WIRE_GLOBAL = 8,
	SIM_WIRE_FLAGS = 15,
};

/// A message, in the byte order of this machine. A receiver believes none of it.
struct sim_wire_message {
	/// SIM_WIRE_VERSION and the size of this struct.
	uint16_t version, size;
	/// `enum sim_wire_kind`; numbers of `Operation` and `Answer`; `enum sim_wire_flags`.
	uint8_t kind, operation, answer, flags;
	/// LID of the sending port.
	uint16_t source;
	uint8_t service_level, reserved[5];
	uint32_t source_queue_pair, destination_queue_pair;
	/// PSN of a request's first packet, and the path MTU in bytes.
	uint32_t psn, path_mtu;
	/// Which request it is, or whose answer.
	uint64_t serial;
	uint64_t remote_address, compare, swap_or_add;
	/// Immediate data are big endian.
	uint32_t remote_key, immediate, invalid_key, qkey;
	/// In the order of their bytes.
	uint64_t source_gid[2], destination_gid[2];
	/// Bytes that it carries; of a READ: that are wanted.
	uint64_t length;
};

/// Takes the first LID that is free, and makes its directory. The LID, or a negative errno value: ENAMETOOLONG when a
/// socket below that directory would have a name that is too long, EADDRNOTAVAIL when no LID is left.
int sim_wire_join(const char *directory);
/// Opens the socket of a port: a descriptor, or a negative errno value.
int sim_wire_open(const char *directory, uint16_t lid);
void sim_wire_close(int fd);

/// Sends a message, with a memory file beside it unless that is negative. 0, or an errno value: EAGAIN when the other
/// port takes nothing at the moment, ENOENT when that port never was, ECONNREFUSED when it is closed or its process dead.
int sim_wire_send(
	const char *directory, int fd, uint16_t lid, const struct sim_wire_message *message, int payload);
/// Takes a message: its size, 0 when there is none, and a descriptor of what it carries or -1.
size_t sim_wire_receive(int fd, struct sim_wire_message *message, int *payload);
/// Whether some port has taken this LID; those of a wire have no gap.
bool sim_wire_exists(const char *directory, uint16_t lid);
/// Whether the port is open, and its process alive.
bool sim_wire_is_open(const char *directory, uint16_t lid);

/// A memory file with these bytes, or a negative errno value.
int sim_payload(const void *bytes, size_t size);
/// Reads them back. False when the file holds another number of them.
bool sim_payload_read(int fd, void *bytes, size_t size);

#endif
