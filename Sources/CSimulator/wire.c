#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim_system.h"

/* The last unicast LID; higher ones are multicast LIDs (IBTA 4.1.3). */
#define LAST_LID 0xBFFF

static bool name(struct sockaddr_un *address, const char *directory, unsigned lid)
{
	int size = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%u/wire", directory, lid);

	address->sun_family = AF_UNIX;
	return size > 0 && size < (int)sizeof(address->sun_path);
}

int sim_wire_join(const char *directory)
{
	struct sockaddr_un address;

	for (unsigned lid = 1; lid <= LAST_LID; lid++) {
		if (!name(&address, directory, lid))
			return -ENAMETOOLONG;
		*strrchr(address.sun_path, '/') = '\0';
		if (mkdir(address.sun_path, 0700) == 0)
			return (int)lid;
		if (errno != EEXIST)
			return -errno;
	}
	return -EADDRNOTAVAIL;
}

int sim_wire_open(const char *directory, uint16_t lid)
{
	struct sockaddr_un address;
	int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	/* Removes the port's socket from an earlier open. */
	if (name(&address, directory, lid) && (unlink(address.sun_path) == 0 || errno == ENOENT) &&
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = errno;
	sim_discard(fd);
	return -error;
}

void sim_wire_close(int fd)
{
	/* Wakes a thread that waits for a message. */
	shutdown(fd, SHUT_RDWR);
	sim_discard(fd);
}

/* Room for one descriptor beside a message. */
union beside {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

int sim_wire_send(
	const char *directory, int fd, uint16_t lid, const struct sim_wire_message *message, int payload)
{
	struct sockaddr_un address;
	struct iovec bytes = { .iov_base = (void *)message, .iov_len = sizeof(*message) };
	union beside beside;
	struct msghdr header = {
		.msg_name = &address, .msg_namelen = sizeof(address), .msg_iov = &bytes, .msg_iovlen = 1,
	};

	if (!name(&address, directory, lid))
		return ENOENT;
	if (payload >= 0) {
		memset(&beside, 0, sizeof(beside));
		header.msg_control = beside.bytes;
		header.msg_controllen = sizeof(beside.bytes);
		beside.header.cmsg_level = SOL_SOCKET;
		beside.header.cmsg_type = SCM_RIGHTS;
		beside.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&beside.header), &payload, sizeof(payload));
	}
	if (sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 0;
	/* Too many descriptors in flight, and too little memory, are temporary. */
	return errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM || errno == EINTR ? EAGAIN : errno;
}

size_t sim_wire_receive(int fd, struct sim_wire_message *message, int *payload)
{
	struct iovec bytes = { .iov_base = message, .iov_len = sizeof(*message) };
	union beside beside;
	struct msghdr header = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = beside.bytes, .msg_controllen = sizeof(beside.bytes),
	};
	ssize_t size;

	*payload = -1;
	memset(message, 0, sizeof(*message));
	/* MSG_TRUNC: returns the real size, so that the caller refuses a longer message. */
	size = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
	if (size < 0)
		return 0;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part)) {
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
		    part->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(payload, CMSG_DATA(part), sizeof(*payload));
	}
	/* An empty message is returned with size 1, because 0 means that there is no message. */
	return size == 0 ? 1 : (size_t)size;
}

bool sim_wire_exists(const char *directory, uint16_t lid)
{
	struct sockaddr_un address;

	if (!name(&address, directory, lid))
		return false;
	*strrchr(address.sun_path, '/') = '\0';
	return syscall(SYS_access, address.sun_path, 0) == 0;
}

bool sim_wire_is_open(const char *directory, uint16_t lid)
{
	struct sockaddr_un address;
	int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool is_open;

	/* Without a free descriptor the state is unknown; the caller tries again later. */
	if (fd < 0)
		return true;
	is_open = name(&address, directory, lid) &&
		  (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN);
	sim_discard(fd);
	return is_open;
}

int sim_payload(const void *bytes, size_t size)
{
	int fd = memfd_create("message", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < size;) {
		ssize_t count = pwrite(fd, (const char *)bytes + done, size - done, (off_t)done);

		if (count < 0 && errno != EINTR) {
			int error = errno;

			sim_discard(fd);
			return -error;
		}
		if (count > 0)
			done += (size_t)count;
	}
	return fd;
}

bool sim_payload_read(int fd, void *bytes, size_t size)
{
	char more;

	for (size_t done = 0; done < size;) {
		ssize_t count = pread(fd, (char *)bytes + done, size - done, (off_t)done);

		if (count == 0 || (count < 0 && errno != EINTR))
			return false;
		if (count > 0)
			done += (size_t)count;
	}
	return pread(fd, &more, 1, (off_t)size) == 0;
}
