// The wire between simulated devices of several processes: a directory, in which each port has a directory of its own,
// named by its LID, from 1. An open port has a datagram socket there, `wire`. The payload of a message is a memory file
// whose descriptor is passed with it (SCM_RIGHTS), so that a message of any size is one datagram.
#ifndef SWIFT_RDMA_SIM_WIRE_H
#define SWIFT_RDMA_SIM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The value of `version`. It is increased when the struct or the meaning of a field changes.
enum { SIM_WIRE_VERSION = 1 };

enum sim_wire_kind {
	/// A request of a reliable connection, which is acknowledged.
	SIM_WIRE_REQUEST = 1,
	SIM_WIRE_ACKNOWLEDGEMENT = 2,
	/// A request of an unreliable connection.
	SIM_WIRE_UNRELIABLE = 3,
	SIM_WIRE_DATAGRAM = 4,
	/// The end of an iWARP connection; `acknowledgement` is a raw value of `ConnectionEnd`.
	SIM_WIRE_DISCONNECT = 5,
	/// A message between connection managers: struct sim_cm_message.
	SIM_WIRE_CONNECTION_MANAGER = 16,
};

enum sim_wire_flags {
	SIM_WIRE_IMMEDIATE = 1,
	SIM_WIRE_INVALIDATES = 2,
	SIM_WIRE_SOLICITED = 4,
	SIM_WIRE_GLOBAL = 8,
	SIM_WIRE_FLAGS = 15,
};

/// A message, in host byte order. A receiver checks every field.
struct sim_wire_message {
	/// SIM_WIRE_VERSION and the size of this struct.
	uint16_t version, size;
	/// `enum sim_wire_kind`; raw values of `Operation` and `Acknowledgement`; `enum sim_wire_flags`.
	uint8_t kind, operation, acknowledgement, flags;
	/// LID of the sending port.
	uint16_t source;
	uint8_t service_level, reserved[5];
	uint32_t source_queue_pair, destination_queue_pair;
	/// PSN of a request's first packet, and the path MTU in bytes.
	uint32_t psn, path_mtu;
	/// The serial number of the request, also in its acknowledgement.
	uint64_t serial;
	uint64_t remote_address, compare, swap_or_add;
	/// `immediate` is big endian.
	uint32_t remote_key, immediate, invalid_key, qkey;
	/// In network byte order.
	uint64_t source_gid[2], destination_gid[2];
	/// Size of the payload in bytes; of a READ request, the number of bytes to read.
	uint64_t length;
};

/// Allocates the first free LID and creates its directory. Returns the LID, or a negative errno value: ENAMETOOLONG
/// when the path of a socket in that directory would be too long, EADDRNOTAVAIL when no LID is free.
int sim_wire_join(const char *directory);
/// Opens the socket of a port. Returns a descriptor, or a negative errno value.
int sim_wire_open(const char *directory, uint16_t lid);
void sim_wire_close(int fd);

/// Sends a message, with the memory file `payload` unless that is negative. Returns 0, or an errno value: EAGAIN when
/// the destination's socket is full, ENOENT when there is no such port, ECONNREFUSED when it is closed or its process
/// has ended.
int sim_wire_send(
	const char *directory, int fd, uint16_t lid, const struct sim_wire_message *message, int payload);
/// Receives a message. Returns its size, 0 when there is none; `payload` is the descriptor of its payload, or -1.
size_t sim_wire_receive(int fd, struct sim_wire_message *message, int *payload);
/// Whether this LID is allocated; the LIDs of a wire have no gaps.
bool sim_wire_exists(const char *directory, uint16_t lid);
/// Whether the port is open and its process exists.
bool sim_wire_is_open(const char *directory, uint16_t lid);

/// A memory file with these bytes, or a negative errno value.
int sim_payload(const void *bytes, size_t size);
/// Reads the bytes of a memory file. Returns false when the file has another size.
bool sim_payload_read(int fd, void *bytes, size_t size);

#endif
