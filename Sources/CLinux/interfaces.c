#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_interfaces.h"

#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int linux_find_interface(const char *name, struct linux_interface *interface)
{
	struct ifreq request = { 0 };
	int fd, error = 0;

	memset(interface, 0, sizeof(*interface));
	if (strlen(name) >= sizeof(request.ifr_name) || strlen(name) >= sizeof(interface->name))
		return ENODEV;
	strcpy(interface->name, name);
	interface->index = if_nametoindex(name);
	if (!interface->index)
		return ENODEV;

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	strcpy(request.ifr_name, name);
	if (ioctl(fd, SIOCGIFMTU, &request) < 0) {
		error = errno;
	} else {
		interface->mtu = (uint32_t)request.ifr_mtu;
		if (ioctl(fd, SIOCGIFFLAGS, &request) == 0)
			interface->up = (request.ifr_flags & IFF_UP) != 0;
		if (ioctl(fd, SIOCGIFHWADDR, &request) == 0)
			memcpy(interface->mac, request.ifr_hwaddr.sa_data, sizeof(interface->mac));
	}
	close(fd);
	return error;
}

// Where the next address goes.
struct addresses {
	struct linux_interface_address *first;
	int capacity, count;
};

static void add(struct addresses *addresses, const struct linux_interface_address *address)
{
	if (addresses->count < addresses->capacity)
		addresses->first[addresses->count] = *address;
	addresses->count++;
}

static int add_ipv4(struct addresses *addresses)
{
	struct ifconf list = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0, size;

	if (fd < 0)
		return errno;
	// The kernel fills what there is room for, and does not say that it was too little.
	for (size = 4096;; size *= 2) {
		free(list.ifc_buf);
		list.ifc_len = size;
		list.ifc_buf = malloc((size_t)size);
		if (!list.ifc_buf || ioctl(fd, SIOCGIFCONF, &list) < 0) {
			error = errno;
			break;
		}
		if (list.ifc_len + (int)sizeof(struct ifreq) <= size)
			break;
	}
	for (int index = 0; !error && index < list.ifc_len / (int)sizeof(struct ifreq); index++) {
		struct ifreq *entry = &list.ifc_req[index];
		struct linux_interface_address found = { .index = if_nametoindex(entry->ifr_name) };

		found.gid[10] = found.gid[11] = 0xff;
		memcpy(found.gid + 12, &((struct sockaddr_in *)&entry->ifr_addr)->sin_addr, 4);
		add(addresses, &found);
	}
	free(list.ifc_buf);
	close(fd);
	return error;
}

// proc(5), /proc/net/if_inet6: 32 digits, index, prefix, scope, flags, name. There is none where there is no IPv6.
static void add_ipv6(struct addresses *addresses, bool link_local)
{
	FILE *file = fopen("/proc/net/if_inet6", "re");
	struct linux_interface_address found;
	char digits[33];

	while (file && fscanf(file, "%32s %" SCNx32 " %*x %*x %*x %*s", digits, &found.index) == 2) {
		int bytes = 0;

		while (bytes < 16 && sscanf(digits + 2 * bytes, "%2hhx", &found.gid[bytes]) == 1)
			bytes++;
		if (bytes == 16 && IN6_IS_ADDR_LINKLOCAL((struct in6_addr *)found.gid) == link_local)
			add(addresses, &found);
	}
	if (file)
		fclose(file);
}

// Not by getifaddrs(3), which needs a netlink socket: sandboxes often have none.
int linux_interface_addresses(struct linux_interface_address *addresses, int capacity)
{
	struct addresses list = { .first = addresses, .capacity = capacity };
	int error = add_ipv4(&list);

	if (error)
		return -error;
	// The file's order is that of a hash: the addresses that are of use beyond the link first.
	add_ipv6(&list, false);
	add_ipv6(&list, true);
	return list.count;
}
