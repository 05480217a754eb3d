#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_datagrams.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* linux/udp.h, which cannot be included beside netinet/udp.h. */
#ifndef UDP_NO_CHECK6_TX
#define UDP_NO_CHECK6_TX 101
#define UDP_NO_CHECK6_RX 102
#endif

/* linux/in6.h, Linux 4.20. */
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static bool is_ipv4(const uint8_t gid[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(gid, prefix, sizeof(prefix)) == 0;
}

static socklen_t write_address(union address *address, const uint8_t gid[16], uint16_t port, uint32_t ifindex)
{
	memset(address, 0, sizeof(*address));
	if (is_ipv4(gid)) {
		address->in.sin_family = AF_INET;
		address->in.sin_port = htons(port);
		memcpy(&address->in.sin_addr, gid + 12, 4);
		return sizeof(address->in);
	}
	address->in6.sin6_family = AF_INET6;
	address->in6.sin6_port = htons(port);
	memcpy(&address->in6.sin6_addr, gid, 16);
	/* fe80::/10, and the multicast scopes interface-local and link-local. */
	if ((gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80) || (gid[0] == 0xff && (gid[1] & 0x0f) <= 2))
		address->in6.sin6_scope_id = ifindex;
	return sizeof(address->in6);
}

static void read_address(const union address *address, struct linux_datagram *datagram)
{
	memset(datagram->gid, 0, sizeof(datagram->gid));
	if (address->any.sa_family == AF_INET) {
		datagram->gid[10] = datagram->gid[11] = 0xff;
		memcpy(datagram->gid + 12, &address->in.sin_addr, 4);
		datagram->port = ntohs(address->in.sin_port);
	} else {
		memcpy(datagram->gid, &address->in6.sin6_addr, 16);
		datagram->port = ntohs(address->in6.sin6_port);
	}
}

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/* Switches the UDP checksums of sent datagrams on or off. */
static int set_checksums(int fd, bool ipv4, bool on)
{
	return ipv4 ? set_option(fd, SOL_SOCKET, SO_NO_CHECK, !on) : set_option(fd, SOL_UDP, UDP_NO_CHECK6_TX, !on);
}

static int configure(int fd, bool ipv4)
{
	/* The kernel doubles these values, and silently limits them to net.core.rmem_max and wmem_max. */
	set_option(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	/* A kernel without UDP_GRO delivers single datagrams. */
	set_option(fd, SOL_UDP, UDP_GRO, 1);
	if (set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0)
		return errno;
	if (ipv4) {
		if (set_checksums(fd, ipv4, false) < 0 ||
		    set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO) < 0)
			return errno;
		return 0;
	}
	if (set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0 ||
	    set_checksums(fd, ipv4, false) < 0 ||
	    set_option(fd, SOL_UDP, UDP_NO_CHECK6_RX, 1) < 0 ||
	    set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) < 0)
		return errno;
	return 0;
}

/* Sends to multicast groups over this interface. Without a value of its own, the time to live of a datagram is that of
 * other datagrams, 64, and not 1. A system that refuses has no multicast, and reports that when a datagram is sent. */
static void set_multicast_output(int fd, bool ipv4, uint32_t ifindex)
{
	const struct ip_mreqn out = { .imr_ifindex = (int)ifindex };

	if (ipv4) {
		setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof(out));
		set_option(fd, IPPROTO_IP, IP_MULTICAST_TTL, 64);
	} else {
		set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)ifindex);
		set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 64);
	}
}

static int join(int fd, const uint8_t gid[16], uint32_t ifindex)
{
	struct ip_mreqn group4 = { .imr_ifindex = (int)ifindex };
	struct ipv6_mreq group6 = { .ipv6mr_interface = ifindex };

	/* Only the groups that this socket has joined, on their interface. */
	if (is_ipv4(gid)) {
		memcpy(&group4.imr_multiaddr, gid + 12, 4);
		set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
		return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group4, sizeof(group4)) < 0 ? errno : 0;
	}
	memcpy(&group6.ipv6mr_multiaddr, gid, 16);
	set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
	return setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group6, sizeof(group6)) < 0 ? errno : 0;
}

static int bound_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex)
{
	union address address;
	socklen_t size = write_address(&address, gid, port, ifindex);
	int error, fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	error = configure(fd, is_ipv4(gid));
	if (!error && bind(fd, &address.any, size) < 0)
		error = errno;
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

int linux_roce_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex)
{
	int fd = bound_socket(gid, port, ifindex);

	if (fd >= 0)
		set_multicast_output(fd, is_ipv4(gid), ifindex);
	return fd;
}

int linux_roce_group_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex)
{
	int error, fd = bound_socket(gid, port, ifindex);

	if (fd < 0)
		return fd;
	error = join(fd, gid, ifindex);
	if (!error)
		return fd;
	close(fd);
	return -error;
}

void linux_retire_socket(int fd, const uint8_t gid[16], uint32_t ifindex)
{
	union address discard;
	/* A connected socket receives from its peer only; the peer here is the discard port of the socket's address. */
	socklen_t size = write_address(&discard, gid, 9, ifindex);

	connect(fd, &discard.any, size);
}

uint32_t linux_socket_drops(int fd)
{
	uint32_t values[SK_MEMINFO_DROPS + 1] = { 0 };
	socklen_t size = sizeof(values);

	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, &size);
	return values[SK_MEMINFO_DROPS];
}

bool linux_supports_gso(int fd)
{
	return set_option(fd, SOL_UDP, UDP_SEGMENT, 0) == 0;
}

/* Room for three control messages of up to an int each. */
struct control {
	_Alignas(struct cmsghdr) char bytes[3 * CMSG_SPACE(sizeof(int))];
};

static void add(struct msghdr *message, struct control *control, int level, int type, const void *value, size_t size)
{
	struct cmsghdr *header = (struct cmsghdr *)(control->bytes + message->msg_controllen);

	memset(header, 0, CMSG_SPACE(size));
	header->cmsg_level = level;
	header->cmsg_type = type;
	header->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(header), value, size);
	message->msg_control = control->bytes;
	message->msg_controllen += CMSG_SPACE(size);
}

static void add_control(struct msghdr *message, struct control *control, bool ipv4, const struct linux_datagram *from)
{
	const int level = ipv4 ? IPPROTO_IP : IPPROTO_IPV6;
	const int traffic_class = from->traffic_class, hop_limit = from->hop_limit;
	const uint16_t segment = (uint16_t)from->segment;

	if (segment)
		add(message, control, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	/* 64 is the kernel's default, unless an administrator has changed it. */
	if (traffic_class == 0 && hop_limit == 64)
		return;
	add(message, control, level, ipv4 ? IP_TOS : IPV6_TCLASS, &traffic_class, sizeof(traffic_class));
	add(message, control, level, ipv4 ? IP_TTL : IPV6_HOPLIMIT, &hop_limit, sizeof(hop_limit));
}

/* Sends the messages from *sent to end, and advances *sent. Returns false when the remaining messages must not be sent:
 * the network has no room now (EAGAIN, ENOBUFS), or it does not support GSO (EIO: the interface computes no checksums,
 * or there is IPsec). */
static bool send_messages(int fd, struct mmsghdr *messages, int *sent, int end, bool gso, bool *refused, int *lost)
{
	while (*sent < end) {
		const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		/* Of a single message the other call only takes longer. */
		int done = end - *sent > 1 ? sendmmsg(fd, messages + *sent, (unsigned int)(end - *sent), flags) :
			   sendmsg(fd, &messages[*sent].msg_hdr, flags) < 0 ? -1 : 1;

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return false;
		if (done < 0 && gso && (errno == EINVAL || errno == EIO || errno == EOPNOTSUPP)) {
			*refused = true;
			return false;
		}
		/* The error concerns the first remaining datagram (too long for the path, no route), which is lost. */
		if (done < 0)
			*lost = errno;
		*sent += done > 0 ? done : 1;
	}
	return true;
}

int linux_send_datagrams(int fd, uint32_t ifindex, const struct linux_datagram *datagrams, int count, bool *checksums,
			 bool *refused, int *lost)
{
	struct mmsghdr messages[LINUX_DATAGRAM_BATCH];
	struct iovec vectors[LINUX_DATAGRAM_BATCH];
	union address addresses[LINUX_DATAGRAM_BATCH];
	struct control controls[LINUX_DATAGRAM_BATCH];
	bool goes_on = true;
	int sent = 0;

	*refused = false;
	*lost = 0;
	if (count > LINUX_DATAGRAM_BATCH)
		count = LINUX_DATAGRAM_BATCH;
	for (int index = 0; index < count; index++) {
		const struct linux_datagram *from = &datagrams[index];
		struct msghdr *message = &messages[index].msg_hdr;

		memset(message, 0, sizeof(*message));
		vectors[index] = (struct iovec){ .iov_base = from->bytes, .iov_len = from->count };
		message->msg_iov = &vectors[index];
		message->msg_iovlen = 1;
		message->msg_name = &addresses[index];
		message->msg_namelen = write_address(&addresses[index], from->gid, from->port, ifindex);
		add_control(message, &controls[index], is_ipv4(from->gid), from);
	}
	while (goes_on && sent < count) {
		const bool gso = datagrams[sent].segment != 0, ipv4 = is_ipv4(datagrams[sent].gid);
		int end = sent + 1;

		while (end < count && (datagrams[end].segment != 0) == gso)
			end++;
		/* The kernel refuses UDP_SEGMENT on a socket without checksums. */
		if (*checksums != gso && set_checksums(fd, ipv4, gso) == 0)
			*checksums = gso;
		goes_on = send_messages(fd, messages, &sent, end, gso, refused, lost);
	}
	return sent;
}

/* The length of each datagram of a GRO batch; 0 for a single datagram. */
static uint32_t read_segment(struct msghdr *message)
{
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		int segment;

		if (header->cmsg_level != SOL_UDP || header->cmsg_type != UDP_GRO)
			continue;
		memcpy(&segment, CMSG_DATA(header), sizeof(segment));
		return segment > 0 ? (uint32_t)segment : 0;
	}
	return 0;
}

int linux_receive_datagrams(int fd, struct linux_datagram *datagrams, int count)
{
	struct mmsghdr messages[LINUX_DATAGRAM_BATCH];
	struct iovec vectors[LINUX_DATAGRAM_BATCH];
	union address addresses[LINUX_DATAGRAM_BATCH];
	struct control controls[LINUX_DATAGRAM_BATCH];
	int received;

	if (count > LINUX_DATAGRAM_BATCH)
		count = LINUX_DATAGRAM_BATCH;
	for (int index = 0; index < count; index++) {
		struct msghdr *message = &messages[index].msg_hdr;

		memset(message, 0, sizeof(*message));
		vectors[index] = (struct iovec){ .iov_base = datagrams[index].bytes, .iov_len = datagrams[index].count };
		message->msg_iov = &vectors[index];
		message->msg_iovlen = 1;
		message->msg_name = &addresses[index];
		message->msg_namelen = sizeof(addresses[index]);
		message->msg_control = controls[index].bytes;
		message->msg_controllen = sizeof(controls[index].bytes);
	}
	/* MSG_TRUNC: msg_len is the true length of a datagram that did not fit. */
	if (count == 1) {
		const ssize_t length = recvmsg(fd, &messages[0].msg_hdr, MSG_DONTWAIT | MSG_TRUNC);

		messages[0].msg_len = (unsigned int)length;
		received = length < 0 ? -1 : 1;
	} else {
		received = recvmmsg(fd, messages, (unsigned int)count, MSG_DONTWAIT | MSG_TRUNC, NULL);
	}
	for (int index = 0; index < received; index++) {
		datagrams[index].count = messages[index].msg_len;
		datagrams[index].segment = read_segment(&messages[index].msg_hdr);
		read_address(&addresses[index], &datagrams[index]);
	}
	return received < 0 ? 0 : received;
}
