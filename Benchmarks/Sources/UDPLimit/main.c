/* What the kernel's UDP can do on this machine, without any RDMA:
 *
 *     UDPLimit latency|bandwidth|latency-alike|bandwidth-alike [CORE CORE [NETNS ADDRESS NETNS ADDRESS]]
 *
 * Two processes, one on each of these processors and in each of these network namespaces (ip-netns(8)), with the sockets
 * of soft: buffers of 4 MiB, UDP_GRO, no checksums on single datagrams. "latency": datagrams of 24 bytes, the length of the RC SEND of 8 bytes with its headers, to and fro;
 * both processes spin in recvmsg(2). Half the median round trip in microseconds. "bandwidth": GSO batches of 15 datagrams
 * of 4112 bytes (4096, BTH and ICRC) to a process that reads each batch into one buffer and discards it; after each 1 MiB
 * an answer of 20 bytes is sent, and 4 MiB are in flight at most. The median of GB/s over intervals of 64 MiB.
 *
 * The "alike" forms do what RC needs beyond that, except for the ICRCs. Latency: each datagram is a GSO batch with one of
 * 20 bytes, the acknowledgement. Bandwidth: the payload of each packet is copied from 1 MiB of memory into the batch, and
 * from the received batch into 1 MiB of memory.
 *
 * Prints one JSON document. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

enum {
	MESSAGE = 24,
	ACKNOWLEDGEMENT = 20,
	EXCHANGES = 200000,
	PACKET = 4112,
	PAYLOAD = 4096,
	BATCH = 15,
	MIB = 1 << 20,
	WINDOW = 4,
	INTERVAL = 64,
	INTERVALS = 21,
};

/* Whether messages have acknowledgements, and payload is copied. */
static bool alike;
static char memory[MIB];

static void fail(const char *what)
{
	fprintf(stderr, "UDPLimit: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void set(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)) < 0)
		fail("setsockopt");
}

/* A socket in the network namespace of that name (ip-netns(8)), or here for NULL, with that address. */
static struct sockaddr_in open_socket(int *fd, const char *space, const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t size = sizeof(address);
	char path[256];
	int file;

	if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
		errno = EINVAL;
		fail(text);
	}
	if (space) {
		snprintf(path, sizeof(path), "/run/netns/%s", space);
		file = open(path, O_RDONLY);
		if (file < 0 || setns(file, CLONE_NEWNET) < 0)
			fail(path);
		close(file);
	}
	*fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		fail("socket");
	set(*fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
	set(*fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	set(*fd, SOL_UDP, UDP_GRO, 1);
	if (bind(*fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail("bind");
	if (getsockname(*fd, (struct sockaddr *)&address, &size) < 0)
		fail("getsockname");
	return address;
}

static void send_to(int fd, void *bytes, size_t count, uint16_t segment, struct sockaddr_in *to)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(segment))];
	} control;
	struct iovec vector = { .iov_base = bytes, .iov_len = count };
	struct msghdr message = {
		.msg_name = to, .msg_namelen = sizeof(*to), .msg_iov = &vector, .msg_iovlen = 1 };

	if (segment) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_UDP;
		control.header.cmsg_type = UDP_SEGMENT;
		control.header.cmsg_len = CMSG_LEN(sizeof(segment));
		memcpy(CMSG_DATA(&control.header), &segment, sizeof(segment));
	}
	while (sendmsg(fd, &message, MSG_DONTWAIT) < 0)
		if (errno != EAGAIN && errno != ENOBUFS)
			fail("sendmsg");
}

/* Spins until a datagram or batch is there, and returns its length. */
static size_t receive(int fd, void *bytes, size_t room)
{
	struct iovec vector = { .iov_base = bytes, .iov_len = room };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	ssize_t count;

	do
		count = recvmsg(fd, &message, MSG_DONTWAIT);
	while (count < 0 && errno == EAGAIN);
	if (count < 0)
		fail("recvmsg");
	return (size_t)count;
}

static void send_message(int fd, char *message, struct sockaddr_in *to)
{
	if (alike)
		send_to(fd, message, MESSAGE + ACKNOWLEDGEMENT, MESSAGE, to);
	else
		send_to(fd, message, MESSAGE, 0, to);
}

static void answer_latency(int fd, struct sockaddr_in *to)
{
	char message[MESSAGE + ACKNOWLEDGEMENT];

	for (;;) {
		receive(fd, message, sizeof(message));
		send_message(fd, message, to);
	}
}

static void measure_latency(int fd, struct sockaddr_in *to)
{
	uint64_t *times = calloc(EXCHANGES, sizeof(*times));
	char message[MESSAGE + ACKNOWLEDGEMENT] = { 0 };

	if (!times)
		fail("calloc");
	for (int index = 0; index < EXCHANGES; index++) {
		const uint64_t start = now();

		send_message(fd, message, to);
		receive(fd, message, sizeof(message));
		times[index] = now() - start;
	}
	qsort(times, EXCHANGES, sizeof(*times), compare_times);
	printf("{\"latency\": %.3f}\n", (double)times[EXCHANGES / 2] / 2000);
	free(times);
}

static void answer_bandwidth(int fd, struct sockaddr_in *to)
{
	static char room[65536];
	char answer[20] = { 0 };
	size_t left = MIB, place = 0;

	for (;;) {
		const size_t count = receive(fd, room, sizeof(room)), payload = count / PACKET * PAYLOAD;

		for (size_t start = 0; alike && start + PACKET <= count; start += PACKET) {
			memcpy(memory + place, room + start + PACKET - PAYLOAD, PAYLOAD);
			place = (place + PAYLOAD) % MIB;
		}
		if (payload < left) {
			left -= payload;
			continue;
		}
		left += MIB - payload;
		send_to(fd, answer, sizeof(answer), 0, to);
	}
}

static void measure_bandwidth(int fd, struct sockaddr_in *to)
{
	static char packets[BATCH * PACKET];
	uint64_t times[INTERVALS];
	char answer[20];
	uint64_t sent = 0, answered = 0;
	size_t place = 0;

	for (int index = 0; index < INTERVALS; index++) {
		const uint64_t start = now(), end = answered + INTERVAL;

		while (answered < end) {
			if (sent / MIB < answered + WINDOW) {
				for (int packet = 0; alike && packet < BATCH; packet++) {
					memcpy(packets + (packet + 1) * PACKET - PAYLOAD, memory + place, PAYLOAD);
					place = (place + PAYLOAD) % MIB;
				}
				send_to(fd, packets, sizeof(packets), PACKET, to);
				sent += BATCH * PAYLOAD;
			}
			if (sent / MIB >= answered + WINDOW || (sent / PAYLOAD) % 256 < BATCH) {
				while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
					answered++;
			}
		}
		times[index] = now() - start;
	}
	qsort(times, INTERVALS, sizeof(*times), compare_times);
	printf("{\"bandwidth\": %.3f}\n", (double)INTERVAL * MIB / (double)times[INTERVALS / 2]);
}

int main(int count, char **arguments)
{
	const int first = count >= 4 ? atoi(arguments[2]) : 0, second = count >= 4 ? atoi(arguments[3]) : 1;
	struct sockaddr_in own, other;
	int near, far;
	bool latency;
	pid_t child;

	alike = count >= 2 && strstr(arguments[1], "-alike");
	latency = count >= 2 && strncmp(arguments[1], "latency", 7) == 0;
	if ((count != 2 && count != 4 && count != 8) || (!latency && strncmp(arguments[1], "bandwidth", 9) != 0)) {
		fprintf(stderr, "usage: UDPLimit latency|bandwidth|latency-alike|bandwidth-alike"
				" [CORE CORE [NETNS ADDRESS NETNS ADDRESS]]\n");
		return 2;
	}
	other = open_socket(&far, count == 8 ? arguments[4] : NULL, count == 8 ? arguments[5] : "127.0.0.1");
	own = open_socket(&near, count == 8 ? arguments[6] : NULL, count == 8 ? arguments[7] : "127.0.0.1");
	child = fork_peer();
	if (child == 0) {
		pin(first);
		if (latency)
			answer_latency(far, &own);
		answer_bandwidth(far, &own);
	}
	pin(second);
	if (latency)
		measure_latency(near, &other);
	else
		measure_bandwidth(near, &other);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}
