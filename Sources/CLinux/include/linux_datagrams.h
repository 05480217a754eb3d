// UDP sockets as RoCEv2 needs them, and datagrams in batches. Addresses are GIDs: IPv6 as it is, IPv4 as
// ::ffff:a.b.c.d.
#ifndef SWIFT_RDMA_LINUX_DATAGRAMS_H
#define SWIFT_RDMA_LINUX_DATAGRAMS_H

#include <stdbool.h>
#include <stdint.h>

/// How many datagrams, or trains of them, go in one call.
#define LINUX_DATAGRAM_BATCH 32

/// A datagram, or a train: several of one length, the last may be shorter, one behind the other in memory.
struct linux_datagram {
	void *bytes;
	/// Sending: length. Receiving: room before, length after, even when it did not fit. Of a train all together.
	uint32_t count;
	/// Of a train the length of each datagram; 0 otherwise.
	uint32_t segment;
	/// UDP port of the other side.
	uint16_t port;
	uint8_t traffic_class;
	uint8_t hop_limit;
	/// Address of the other side.
	uint8_t gid[16];
};

/// A socket bound to this address and port, which other sockets of this user may share: no checksums either way, never
/// fragmented, and over IPv4 identification 0 with DF set, so that the ICRC can be worked out. Non-blocking. `ifindex`
/// is the scope of a link-local address. It receives trains, where the kernel makes them (UDP_GRO, Linux 5.0). The
/// descriptor, or a negative errno value.
int linux_roce_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex);

/// Whether the kernel sends trains (UDP_SEGMENT, Linux 4.18). They have checksums, and over IPv4 identifications 0, 1, 2
/// and so on in each, and DF set.
bool linux_sends_trains(int fd);

/// Takes a socket out of the group of those that share its address and port: from now on others receive. What it holds
/// can still be received.
void linux_retire_socket(int fd, const uint8_t gid[16], uint32_t ifindex);

/// Sends up to LINUX_DATAGRAM_BATCH datagrams and trains: how many were taken. What the network does not take now is lost,
/// as datagrams are. `refused`: the next one is a train that the kernel does not send as such; its datagrams, and what
/// is behind them, are still to be sent.
int linux_send_datagrams(int fd, uint32_t ifindex, const struct linux_datagram *datagrams, int count, bool *refused);

/// Receives up to LINUX_DATAGRAM_BATCH datagrams and trains that wait, and says how many.
int linux_receive_datagrams(int fd, struct linux_datagram *datagrams, int count);

#endif
