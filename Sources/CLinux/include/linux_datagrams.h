// UDP sockets as RoCEv2 needs them, and datagrams in batches. Addresses are GIDs: IPv6 as it is, IPv4 as
// ::ffff:a.b.c.d.
#ifndef SWIFT_RDMA_LINUX_DATAGRAMS_H
#define SWIFT_RDMA_LINUX_DATAGRAMS_H

#include <stdint.h>

/// How many datagrams go in one call.
#define LINUX_DATAGRAM_BATCH 32

struct linux_datagram {
	void *bytes;
	/// Sending: length. Receiving: room before, length of the datagram after, even when it did not fit.
	uint32_t count;
	/// UDP port of the other side.
	uint16_t port;
	uint8_t traffic_class;
	uint8_t hop_limit;
	/// Address of the other side.
	uint8_t gid[16];
};

/// A socket bound to this address and port, which other sockets of this user may share: no checksums either way, never
/// fragmented, and over IPv4 identification 0 with DF set, so that the ICRC can be worked out. Non-blocking. `ifindex`
/// is the scope of a link-local address. The descriptor, or a negative errno value.
int linux_roce_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex);

/// Takes a socket out of the group of those that share its address and port: from now on others receive. What it holds
/// can still be received.
void linux_retire_socket(int fd, const uint8_t gid[16], uint32_t ifindex);

/// Sends up to LINUX_DATAGRAM_BATCH datagrams: how many were taken. What the network does not take now is lost, as
/// datagrams are.
int linux_send_datagrams(int fd, uint32_t ifindex, const struct linux_datagram *datagrams, int count);

/// Receives up to LINUX_DATAGRAM_BATCH datagrams that wait, and says how many.
int linux_receive_datagrams(int fd, struct linux_datagram *datagrams, int count);

#endif
