// UDP sockets for RoCEv2, and sending and receiving of many datagrams with one system call. Addresses are GIDs: IPv6
// addresses unchanged, IPv4 addresses as ::ffff:a.b.c.d.
#ifndef SWIFT_RDMA_LINUX_DATAGRAMS_H
#define SWIFT_RDMA_LINUX_DATAGRAMS_H

#include <stdbool.h>
#include <stdint.h>

/// The largest number of datagrams and GSO batches in one call.
#define LINUX_DATAGRAM_BATCH 32

/// A datagram, or a GSO (UDP_SEGMENT) or GRO (UDP_GRO) batch: contiguous datagrams of one length, of which the last may
/// be shorter.
struct linux_datagram {
	void *bytes;
	/// Sending: length. Receiving: room before the call, length after it, even when the datagram did not fit. For a
	/// batch, the length of all its datagrams.
	uint32_t count;
	/// The length of each datagram of a batch; 0 for a single datagram.
	uint32_t segment;
	/// UDP port of the peer.
	uint16_t port;
	uint8_t traffic_class;
	uint8_t hop_limit;
	/// Address of the peer.
	uint8_t gid[16];
};

/// Creates a non-blocking socket bound to this address and port, which other sockets of this user may share
/// (SO_REUSEPORT). Its datagrams have no UDP checksum in either direction and are never fragmented; over IPv4 they have
/// identification 0 and DF set, so that the ICRC can be computed. `ifindex` is the scope of a link-local address. It
/// receives GRO batches if the kernel supports them (UDP_GRO, Linux 5.0). It sends to multicast groups over the interface
/// `ifindex`. Returns the descriptor, or a negative errno
/// value.
int linux_roce_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex);

/// Creates such a socket bound to a multicast group and this port, and joins the group on this interface. It receives the
/// datagrams of the group that arrive there, and those that processes of this host send there; other sockets of the
/// group receive copies. Returns the descriptor, or a negative errno value.
int linux_roce_group_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex);

/// Whether the kernel supports GSO batches (UDP_SEGMENT, Linux 4.18). Their datagrams have UDP checksums; over IPv4
/// they have DF set, and their identifications count from 0 in each batch.
bool linux_supports_gso(int fd);

/// Removes a socket from the SO_REUSEPORT group of its address and port: later datagrams arrive at the other sockets.
/// Datagrams that are already queued can still be received.
void linux_retire_socket(int fd, const uint8_t gid[16], uint32_t ifindex);

/// Sends up to LINUX_DATAGRAM_BATCH datagrams and batches. Returns the number of consumed ones, sent or lost; it is
/// smaller than `count` when the network has no room now, or when `*refused` is set. `*refused`: the next one is a GSO
/// batch that the kernel does not send; it and the following ones are not sent yet. `*lost`: the errno value of the
/// last datagram that cannot be sent (EMSGSIZE, ENETUNREACH, EPERM and others), or 0. `*checksums`: whether the datagrams
/// of this socket have UDP checksums now, false at first. It is changed with the kind of the datagrams, so that a row of
/// batches needs no system call for it.
int linux_send_datagrams(int fd, uint32_t ifindex, const struct linux_datagram *datagrams, int count, bool *checksums,
			 bool *refused, int *lost);

/// Receives up to LINUX_DATAGRAM_BATCH datagrams and batches without waiting. Returns their number.
int linux_receive_datagrams(int fd, struct linux_datagram *datagrams, int count);

/// The number of datagrams that the kernel has dropped because the buffer of the socket was full (SO_MEMINFO). Wraps.
uint32_t linux_socket_drops(int fd);

#endif
