#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_mailbox.h"

#include "abstract_name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void linux_mailbox_of_slot(int slot, char name[LINUX_MAILBOX_NAME_SIZE])
{
	snprintf(name, LINUX_MAILBOX_NAME_SIZE, "swift-rdma-soft-%u-mad-%d", (unsigned)geteuid(), slot);
}

void linux_mailbox_of_service(uint64_t service, const uint8_t *gid, char name[LINUX_MAILBOX_NAME_SIZE])
{
	int count = snprintf(name, LINUX_MAILBOX_NAME_SIZE, "swift-rdma-soft-%u-service-%016llx-", (unsigned)geteuid(),
			     (unsigned long long)service);

	if (!gid) {
		snprintf(name + count, LINUX_MAILBOX_NAME_SIZE - (size_t)count, "any");
		return;
	}
	for (int i = 0; i < 16; i++)
		count += snprintf(name + count, LINUX_MAILBOX_NAME_SIZE - (size_t)count, "%02x", gid[i]);
}

int linux_mailbox_open(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	const int on = 1;
	int error;

	if (fd < 0)
		return -errno;
	if (!name)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0 &&
	    bind(fd, (struct sockaddr *)&address, linux_write_abstract_name(&address, name)) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

/* Room for the credentials of a sender and for nothing else: the kernel discards descriptors for which there is no room. */
union credentials {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(struct ucred))];
};

int linux_mailbox_send(int fd, const char *name, const void *head, size_t head_count, const void *bytes, size_t count)
{
	struct sockaddr_un address;
	socklen_t size = linux_write_abstract_name(&address, name);
	struct iovec parts[2] = { { (void *)head, head_count }, { (void *)bytes, count } };
	struct msghdr message = {
		.msg_name = &address, .msg_namelen = size, .msg_iov = parts, .msg_iovlen = count ? 2 : 1
	};
	/* The effective user ID, by which the receiver judges; otherwise the kernel fills in the real one. */
	const struct ucred own = { .pid = getpid(), .uid = geteuid(), .gid = getegid() };
	union credentials control;

	memset(&control, 0, sizeof(control));
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_CREDENTIALS;
	control.header.cmsg_len = CMSG_LEN(sizeof(own));
	memcpy(CMSG_DATA(&control.header), &own, sizeof(own));
	while (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		/* A user namespace that does not map the IDs. */
		if (errno == EINVAL && message.msg_control) {
			message.msg_control = NULL;
			message.msg_controllen = 0;
			continue;
		}
		return errno == ENOBUFS ? EAGAIN : errno;
	}
	return 0;
}

/* Whether the sender of a message is of this user: the kernel checks SCM_CREDENTIALS, and maps it to this user namespace. */
static bool is_of_this_user(struct msghdr *message)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);
	struct ucred sender;

	if (!control || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_CREDENTIALS ||
	    control->cmsg_len != CMSG_LEN(sizeof(sender)))
		return false;
	memcpy(&sender, CMSG_DATA(control), sizeof(sender));
	return sender.uid == geteuid();
}

int linux_mailbox_receive(int fd, void *bytes, size_t capacity)
{
	for (;;) {
		struct iovec part = { bytes, capacity };
		union credentials control;
		struct msghdr message = {
			.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		ssize_t count = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		return !is_of_this_user(&message) || message.msg_flags & MSG_TRUNC ? -EMSGSIZE : (int)count;
	}
}
