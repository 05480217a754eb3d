#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_local.h"

#include "abstract_name.h"
#include "linux_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Linux 6.3. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define TABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* Linux 5.1. */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

void linux_slot_name(int slot, char name[64])
{
	snprintf(name, 64, "swift-rdma-soft-%u-%d", (unsigned)geteuid(), slot);
}

static int local_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

/* SO_PEERCRED returns the peer's user ID as this process's user namespace maps it: user 0 in a rootless container is
 * another user outside. */
static bool is_of_this_user(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

int linux_local_process(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

static int close_with(int fd, int error)
{
	close(fd);
	return -error;
}

int linux_local_listen(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = linux_write_abstract_name(&address, name);
	int fd = local_socket();

	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 512) < 0)
		return close_with(fd, errno);
	return fd;
}

int linux_local_accept(int listener)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	return is_of_this_user(fd) ? fd : close_with(fd, EPERM);
}

int linux_local_connect(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = linux_write_abstract_name(&address, name);
	int fd = local_socket();

	if (fd < 0)
		return fd;
	while (connect(fd, (struct sockaddr *)&address, size) < 0)
		if (errno != EINTR)
			return close_with(fd, errno);
	return is_of_this_user(fd) ? fd : close_with(fd, EPERM);
}

int linux_local_send(int fd, const void *head, size_t head_count, const void *bytes, size_t count, int descriptor)
{
	struct iovec parts[2] = { { (void *)head, head_count }, { (void *)bytes, count } };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = count ? 2 : 1 };

	if (descriptor >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.room);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(descriptor));
	}
	while (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return errno == ENOBUFS ? EAGAIN : errno;
	return 0;
}

/* Returns the descriptor that was passed with a message, or -1. If there are several, closes them and returns -2. */
static int take_descriptor(struct msghdr *message)
{
	struct cmsghdr *control;
	int taken = -1, count = 0;

	for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
		size_t at = CMSG_LEN(0);

		if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
			continue;
		for (; at + sizeof(int) <= control->cmsg_len; at += sizeof(int), count++) {
			if (taken >= 0)
				close(taken);
			memcpy(&taken, (char *)control + at, sizeof(int));
		}
	}
	if (count > 1 || (message->msg_flags & MSG_CTRUNC)) {
		if (taken >= 0)
			close(taken);
		return -2;
	}
	return taken;
}

int linux_local_receive(int fd, void *bytes, size_t capacity, int *descriptor)
{
	struct iovec part = { bytes, capacity };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	ssize_t count;

	*descriptor = -1;
	do
		count = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	*descriptor = take_descriptor(&message);
	if (count > 0 && !(message.msg_flags & MSG_TRUNC))
		return (int)count;
	if (*descriptor >= 0)
		close(*descriptor);
	*descriptor = -1;
	return count == 0 ? -EPIPE : -EMSGSIZE;
}

bool linux_local_has_ended(int fd)
{
	char byte;
	ssize_t count = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

	return count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
}

bool linux_local_has_room(int fd)
{
	struct pollfd connection = { .fd = fd, .events = POLLOUT };

	return poll(&connection, 1, 0) != 0;
}

static int map_shared(int fd, size_t size, void **address)
{
	*address = linux_map_file(fd, 0, size);
	return *address ? 0 : errno;
}

static int sealable_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

int linux_make_memory(const char *name, size_t size, int *fd, void **address, int (*prepare)(int, size_t, void **))
{
	struct rlimit limit;
	int error;

	/* Beyond the limit the kernel sends SIGXFSZ, which ends the program. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size)
		return EFBIG;
	*fd = sealable_file(name);
	if (*fd < 0)
		return errno;
	error = ftruncate(*fd, (off_t)size) < 0 ? errno : prepare(*fd, size, address);
	if (error) {
		close(*fd);
		*fd = -1;
		*address = NULL;
	}
	return error;
}

/* Reserves the memory, so that access to it cannot fail later. */
static int prepare_shared(int fd, size_t size, void **address)
{
	if (!linux_reserve_table(fd, 0, size) || fcntl(fd, F_ADD_SEALS, SIZE_SEALS) < 0)
		return errno;
	return map_shared(fd, size, address);
}

int linux_make_shared_memory(const char *name, size_t size, int *fd, void **address)
{
	return linux_make_memory(name, size, fd, address, prepare_shared);
}

/* Whether the descriptor is that of a memory file with these seals; its size. */
static bool is_sealed(int fd, int wanted, size_t *size)
{
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & wanted) != wanted)
		return false;
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size <= 0)
		return false;
	*size = (size_t)status.st_size;
	return true;
}

int linux_map_shared_memory(int fd, size_t size, void **address)
{
	size_t found;

	return is_sealed(fd, SIZE_SEALS, &found) && found == size ? map_shared(fd, size, address) : EINVAL;
}

static int prepare_table(int fd, size_t size, void **address)
{
	if (!linux_reserve_table(fd, 0, (uint64_t)linux_page_size()))
		return ENOMEM;
	*address = linux_map_file(fd, 0, size);
	if (!*address)
		return errno;
	/* Kernels before 5.1 do not know the last seal. */
	if (fcntl(fd, F_ADD_SEALS, TABLE_SEALS | F_SEAL_FUTURE_WRITE) == 0 || fcntl(fd, F_ADD_SEALS, TABLE_SEALS) == 0)
		return 0;
	linux_unmap(*address, size);
	return EINVAL;
}

int linux_make_table(const char *name, size_t size, int *fd, void **address)
{
	return linux_make_memory(name, size, fd, address, prepare_table);
}

bool linux_reserve_table(int fd, uint64_t offset, uint64_t count)
{
	while (fallocate(fd, 0, (off_t)offset, (off_t)count) < 0)
		if (errno != EINTR)
			return false;
	return true;
}

int linux_map_table(int fd, size_t *size, void **address)
{
	if (!is_sealed(fd, TABLE_SEALS, size))
		return EINVAL;
	*address = linux_map_readable(fd, 0, *size);
	return *address ? 0 : errno;
}

int linux_map_arena(int fd, size_t *size, void **address)
{
	return is_sealed(fd, TABLE_SEALS, size) ? map_shared(fd, *size, address) : EINVAL;
}

int linux_ready_list(void)
{
	int list = epoll_create1(EPOLL_CLOEXEC);

	return list < 0 ? -errno : list;
}

int linux_ready_add(int list, int fd, uint64_t tag)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.u64 = tag };

	return epoll_ctl(list, EPOLL_CTL_ADD, fd, &event) < 0 ? errno : 0;
}

void linux_ready_remove(int list, int fd)
{
	epoll_ctl(list, EPOLL_CTL_DEL, fd, NULL);
}

int linux_ready(int list, uint64_t *tags, int capacity)
{
	struct epoll_event events[16];
	int index, count = epoll_wait(list, events, capacity < 16 ? capacity : 16, 0);

	for (index = 0; index < count; index++)
		tags[index] = events[index].data.u64;
	return count < 0 ? 0 : count;
}
