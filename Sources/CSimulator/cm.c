#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_cm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sim_system.h"
#include "sim_wire.h"

/* struct sockaddr_ib of the kernel (include/rdma/ib.h). */
struct address_ib {
	uint16_t family, pkey;
	uint32_t flow;
	uint64_t address[2];
	uint64_t service, service_mask, scope;
};

_Static_assert(sizeof(struct sim_cm_address) == 56, "no padding");
_Static_assert(sizeof(struct address_ib) == 48, "no padding");

size_t sim_cm_address_size(uint16_t family)
{
	switch (family) {
	case SIM_AF_INET:
		return sizeof(struct sockaddr_in);
	case SIM_AF_INET6:
		return sizeof(struct sockaddr_in6);
	case SIM_AF_IB:
		return sizeof(struct address_ib);
	default:
		return 0;
	}
}

bool sim_cm_read_address(const void *bytes, size_t size, struct sim_cm_address *address)
{
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
	struct address_ib ib;
	size_t length;

	memset(address, 0, sizeof(*address));
	if (size < sizeof(address->family))
		return false;
	memcpy(&address->family, bytes, sizeof(address->family));
	length = sim_cm_address_size(address->family);
	if (length == 0 || length > size)
		return false;
	switch (address->family) {
	case SIM_AF_INET:
		memcpy(&ip4, bytes, sizeof(ip4));
		address->port = be16toh(ip4.sin_port);
		address->address[1] = htobe64(0xFFFF00000000ULL | be32toh(ip4.sin_addr.s_addr));
		break;
	case SIM_AF_INET6:
		memcpy(&ip6, bytes, sizeof(ip6));
		address->port = be16toh(ip6.sin6_port);
		address->flow = ip6.sin6_flowinfo;
		memcpy(address->address, &ip6.sin6_addr, sizeof(address->address));
		address->scope = ip6.sin6_scope_id;
		break;
	default:
		memcpy(&ib, bytes, sizeof(ib));
		address->pkey = ib.pkey;
		address->flow = ib.flow;
		memcpy(address->address, ib.address, sizeof(address->address));
		address->service = be64toh(ib.service);
		address->service_mask = be64toh(ib.service_mask);
		address->scope = ib.scope;
		address->port = (uint16_t)(address->service & address->service_mask);
	}
	return true;
}

size_t sim_cm_write_address(const struct sim_cm_address *address, void *bytes)
{
	struct sockaddr_in ip4 = { .sin_family = SIM_AF_INET, .sin_port = htobe16(address->port) };
	struct sockaddr_in6 ip6 = { .sin6_family = SIM_AF_INET6, .sin6_port = htobe16(address->port) };
	struct address_ib ib = { .family = SIM_AF_IB, .pkey = address->pkey, .flow = address->flow };

	switch (address->family) {
	case SIM_AF_INET:
		ip4.sin_addr.s_addr = htobe32((uint32_t)be64toh(address->address[1]));
		memcpy(bytes, &ip4, sizeof(ip4));
		break;
	case SIM_AF_INET6:
		ip6.sin6_flowinfo = address->flow;
		memcpy(&ip6.sin6_addr, address->address, sizeof(ip6.sin6_addr));
		ip6.sin6_scope_id = (uint32_t)address->scope;
		memcpy(bytes, &ip6, sizeof(ip6));
		break;
	case SIM_AF_IB:
		memcpy(ib.address, address->address, sizeof(ib.address));
		ib.service = htobe64(address->service);
		ib.service_mask = htobe64(address->service_mask);
		ib.scope = address->scope;
		memcpy(bytes, &ib, sizeof(ib));
		break;
	}
	return sim_cm_address_size(address->family);
}

/* ---- ports ---- */

/* A port is a symbolic link in the wire's directory, whose target is the LID of its owner, and " listening" behind it. */
static bool name(char *path, size_t size, const char *wire, uint16_t space, uint16_t port)
{
	return snprintf(path, size, "%s/port-%x-%u", wire, space, port) < (int)size;
}

/* The directory, locked against the other processes; -1 on an error, and in errno its reason. */
static int lock(const char *wire)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, wire, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd >= 0)
		while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
			;
	return fd;
}

static uint16_t read_owner(const char *path)
{
	char target[32];
	ssize_t size = readlink(path, target, sizeof(target) - 1);

	if (size <= 0)
		return 0;
	target[size] = '\0';
	return (uint16_t)strtoul(target, NULL, 10);
}

int sim_cm_claim(const char *wire, uint16_t space, uint16_t port, uint16_t lid)
{
	char path[512], target[16];
	uint16_t owner;
	int fd, error = 0;

	if (!name(path, sizeof(path), wire, space, port))
		return ENAMETOOLONG;
	fd = lock(wire);
	if (fd < 0)
		return errno;
	owner = read_owner(path);
	if (owner != lid) {
		if (owner != 0 && sim_wire_is_open(wire, owner)) {
			error = EADDRINUSE;
		} else {
			/* Left by a process that has ended. */
			unlink(path);
			snprintf(target, sizeof(target), "%u", lid);
			error = symlink(target, path) < 0 ? errno : 0;
		}
	}
	sim_discard(fd);
	return error;
}

void sim_cm_show_listener(const char *wire, uint16_t space, uint16_t port, uint16_t lid)
{
	char path[512], target[32];
	int fd;

	if (!name(path, sizeof(path), wire, space, port))
		return;
	fd = lock(wire);
	if (fd < 0)
		return;
	if (read_owner(path) == lid) {
		unlink(path);
		snprintf(target, sizeof(target), "%u listening", lid);
		(void)!symlink(target, path);
	}
	sim_discard(fd);
}

void sim_cm_release(const char *wire, uint16_t space, uint16_t port, uint16_t lid)
{
	char path[512];
	int fd;

	if (!name(path, sizeof(path), wire, space, port))
		return;
	fd = lock(wire);
	if (fd < 0)
		return;
	if (read_owner(path) == lid)
		unlink(path);
	sim_discard(fd);
}

uint16_t sim_cm_owner(const char *wire, uint16_t space, uint16_t port)
{
	char path[512];
	uint16_t owner = name(path, sizeof(path), wire, space, port) ? read_owner(path) : 0;

	return owner != 0 && sim_wire_is_open(wire, owner) ? owner : 0;
}
