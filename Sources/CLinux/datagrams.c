#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_datagrams.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* linux/udp.h, which cannot be included beside netinet/udp.h. */
#ifndef UDP_NO_CHECK6_TX
#define UDP_NO_CHECK6_TX 101
#define UDP_NO_CHECK6_RX 102
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
	if (gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80)
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

static int configure(int fd, bool ipv4)
{
	/* The kernel doubles this, and cuts it to net.core.rmem_max without a word. */
	set_option(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	if (set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0)
		return errno;
	if (ipv4) {
		if (set_option(fd, SOL_SOCKET, SO_NO_CHECK, 1) < 0 ||
		    set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO) < 0)
			return errno;
		return 0;
	}
	if (set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0 ||
	    set_option(fd, IPPROTO_UDP, UDP_NO_CHECK6_TX, 1) < 0 ||
	    set_option(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1) < 0 ||
	    set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) < 0)
		return errno;
	return 0;
}

int linux_roce_socket(const uint8_t gid[16], uint16_t port, uint32_t ifindex)
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

void linux_retire_socket(int fd, const uint8_t gid[16], uint32_t ifindex)
{
	union address nobody;
	/* A connected socket is found for its peer only; this one is the discard port of our own address. */
	socklen_t size = write_address(&nobody, gid, 9, ifindex);

	connect(fd, &nobody.any, size);
}

/* Room for two control messages of an int each. */
struct control {
	_Alignas(struct cmsghdr) char bytes[2 * CMSG_SPACE(sizeof(int))];
};

static void add_control(struct msghdr *message, struct control *control, bool ipv4, const struct linux_datagram *from)
{
	const int types[2] = { ipv4 ? IP_TOS : IPV6_TCLASS, ipv4 ? IP_TTL : IPV6_HOPLIMIT };
	const int values[2] = { from->traffic_class, from->hop_limit };
	struct cmsghdr *header;

	memset(control, 0, sizeof(*control));
	message->msg_control = control->bytes;
	message->msg_controllen = sizeof(control->bytes);
	header = CMSG_FIRSTHDR(message);
	for (int index = 0; index < 2; index++, header = CMSG_NXTHDR(message, header)) {
		header->cmsg_level = ipv4 ? IPPROTO_IP : IPPROTO_IPV6;
		header->cmsg_type = types[index];
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &values[index], sizeof(int));
	}
}

int linux_send_datagrams(int fd, uint32_t ifindex, const struct linux_datagram *datagrams, int count)
{
	struct mmsghdr messages[LINUX_DATAGRAM_BATCH];
	struct iovec pieces[LINUX_DATAGRAM_BATCH];
	union address addresses[LINUX_DATAGRAM_BATCH];
	struct control controls[LINUX_DATAGRAM_BATCH];
	int sent = 0;

	if (count > LINUX_DATAGRAM_BATCH)
		count = LINUX_DATAGRAM_BATCH;
	for (int index = 0; index < count; index++) {
		const struct linux_datagram *from = &datagrams[index];
		struct msghdr *message = &messages[index].msg_hdr;

		memset(message, 0, sizeof(*message));
		pieces[index] = (struct iovec){ .iov_base = from->bytes, .iov_len = from->count };
		message->msg_iov = &pieces[index];
		message->msg_iovlen = 1;
		message->msg_name = &addresses[index];
		message->msg_namelen = write_address(&addresses[index], from->gid, from->port, ifindex);
		/* 64 is what the kernel does by itself, unless an administrator says otherwise. */
		if (from->traffic_class != 0 || from->hop_limit != 64)
			add_control(message, &controls[index], is_ipv4(from->gid), from);
	}
	while (sent < count) {
		int done = sendmmsg(fd, messages + sent, (unsigned int)(count - sent), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && (errno == EAGAIN || errno == ENOBUFS))
			break;
		/* An error belongs to the first datagram left (too long for the path, no route): it is lost. */
		sent += done > 0 ? done : 1;
	}
	return sent;
}

int linux_receive_datagrams(int fd, struct linux_datagram *datagrams, int count)
{
	struct mmsghdr messages[LINUX_DATAGRAM_BATCH];
	struct iovec pieces[LINUX_DATAGRAM_BATCH];
	union address addresses[LINUX_DATAGRAM_BATCH];
	int received;

	if (count > LINUX_DATAGRAM_BATCH)
		count = LINUX_DATAGRAM_BATCH;
	for (int index = 0; index < count; index++) {
		struct msghdr *message = &messages[index].msg_hdr;

		memset(message, 0, sizeof(*message));
		pieces[index] = (struct iovec){ .iov_base = datagrams[index].bytes, .iov_len = datagrams[index].count };
		message->msg_iov = &pieces[index];
		message->msg_iovlen = 1;
		message->msg_name = &addresses[index];
		message->msg_namelen = sizeof(addresses[index]);
	}
	/* MSG_TRUNC: the true length of a datagram that did not fit. */
	received = recvmmsg(fd, messages, (unsigned int)count, MSG_DONTWAIT | MSG_TRUNC, NULL);
	for (int index = 0; index < received; index++) {
		datagrams[index].count = messages[index].msg_len;
		read_address(&addresses[index], &datagrams[index]);
	}
	return received < 0 ? 0 : received;
}
