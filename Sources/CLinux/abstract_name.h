/* An abstract name of unix(7), for sockets of both kinds: connections (local.c) and datagrams (mailbox.c). */
#ifndef SWIFT_RDMA_ABSTRACT_NAME_H
#define SWIFT_RDMA_ABSTRACT_NAME_H

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Writes the address with this name, and returns its length. */
static inline socklen_t linux_write_abstract_name(struct sockaddr_un *address, const char *name)
{
	size_t count = strnlen(name, sizeof(address->sun_path) - 1);

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path + 1, name, count);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + count);
}

#endif
