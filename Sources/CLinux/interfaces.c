#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_interfaces.h"

#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Whether the link has a carrier. ETHTOOL_GLINK returns the driver's current state; IFF_RUNNING can lag by a second. */
static bool has_carrier(int fd, struct ifreq request, int flags)
{
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };

	request.ifr_data = (void *)&link;
	return ioctl(fd, SIOCETHTOOL, &request) == 0 ? link.data != 0 : (flags & IFF_RUNNING) != 0;
}

/* Reads the interface with this name. `fd`: any socket. */
static int read_interface(int fd, const char *name, struct linux_interface *interface)
{
	struct linux_interface found = { 0 };
	struct ifreq request = { 0 };

	if (strlen(name) >= sizeof(request.ifr_name) || strlen(name) >= sizeof(found.name))
		return ENODEV;
	strcpy(found.name, name);
	strcpy(request.ifr_name, name);
	// Not with if_nametoindex(3), which returns 0 for every error.
	if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
		return errno;
	found.index = (uint32_t)request.ifr_ifindex;
	if (ioctl(fd, SIOCGIFMTU, &request) < 0)
		return errno;
	found.mtu = (uint32_t)request.ifr_mtu;
	if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
		found.up = (request.ifr_flags & IFF_UP) != 0;
		found.running = found.up && has_carrier(fd, request, request.ifr_flags);
	}
	if (ioctl(fd, SIOCGIFHWADDR, &request) == 0)
		memcpy(found.mac, request.ifr_hwaddr.sa_data, sizeof(found.mac));
	*interface = found;
	return 0;
}

int linux_find_interface(const char *name, struct linux_interface *interface)
{
	int error, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(interface, 0, sizeof(*interface));
	if (fd < 0)
		return errno;
	error = read_interface(fd, name, interface);
	close(fd);
	return error;
}

int linux_follow_interface(struct linux_interface *interface)
{
	struct ifreq request = { .ifr_ifindex = (int)interface->index };
	int error = ENODEV, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	if (ioctl(fd, SIOCGIFNAME, &request) == 0)
		error = read_interface(fd, request.ifr_name, interface);
	if (error == ENODEV)
		error = read_interface(fd, interface->name, interface);
	close(fd);
	return error;
}

int linux_watch_interfaces(void)
{
	struct sockaddr_nl groups = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
	};
	int error, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&groups, sizeof(groups)) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

bool linux_interfaces_changed(int fd)
{
	bool changed = false;
	char byte;

	/* ENOBUFS: the socket's buffer has overflowed, so there were changes. */
	while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) >= 0 || errno == ENOBUFS || errno == EINTR)
		changed = true;
	return changed;
}

int linux_interface_name(uint32_t index, char name[16])
{
	return if_indextoname(index, name) ? 0 : errno;
}

// A caller's array, and the number of addresses so far, which can exceed its capacity.
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
	// The kernel fills the buffer and does not report that it was too small.
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
		struct ifreq *entry = &list.ifc_req[index], request = { 0 };
		struct linux_interface_address found = { 0 };

		// Not if_nametoindex(3), which opens a socket, and returns 0 when no descriptor is left.
		memcpy(request.ifr_name, entry->ifr_name, sizeof(request.ifr_name));
		if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
			continue; // The interface has been removed.
		found.index = (uint32_t)request.ifr_ifindex;
		found.gid[10] = found.gid[11] = 0xff;
		memcpy(found.gid + 12, &((struct sockaddr_in *)&entry->ifr_addr)->sin_addr, 4);
		add(addresses, &found);
	}
	free(list.ifc_buf);
	close(fd);
	return error;
}

// Whether the addresses exist but cannot be read now. Without them the list would be wrong, not just shorter.
static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM;
}

// Used where /proc is not mounted.
static int add_ipv6_by_netlink(struct addresses *addresses, bool link_local)
{
	struct ifaddrs *list = NULL;

	// A sandbox may forbid netlink; then the IPv4 addresses are all.
	if (getifaddrs(&list) < 0)
		return is_shortage(errno) ? errno : 0;
	for (const struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
		const struct sockaddr_in6 *address = (const struct sockaddr_in6 *)entry->ifa_addr;
		struct linux_interface_address found = { 0 };

		if (!address || address->sin6_family != AF_INET6 ||
		    IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr) != link_local)
			continue;
		found.index = if_nametoindex(entry->ifa_name);
		memcpy(found.gid, &address->sin6_addr, 16);
		add(addresses, &found);
	}
	freeifaddrs(list);
	return 0;
}

// proc(5), /proc/net/if_inet6: 32 digits, index, prefix, scope, flags, name. The file does not exist without IPv6.
static int add_ipv6(struct addresses *addresses, bool link_local)
{
	FILE *file = fopen("/proc/net/if_inet6", "re");
	struct linux_interface_address found = { 0 };
	uint32_t flags;
	char digits[33];

	if (!file && is_shortage(errno))
		return errno;
	if (!file && access("/proc/net", F_OK) != 0)
		return add_ipv6_by_netlink(addresses, link_local);
	while (file && fscanf(file, "%32s %" SCNx32 " %*x %*x %" SCNx32 " %*s", digits, &found.index, &flags) == 3) {
		int bytes = 0;

		/* An optimistic address can be used while it is still tentative (RFC 4429). */
		found.unusable = (flags & IFA_F_DADFAILED) ||
				 ((flags & IFA_F_TENTATIVE) && !(flags & IFA_F_OPTIMISTIC));
		while (bytes < 16 && sscanf(digits + 2 * bytes, "%2hhx", &found.gid[bytes]) == 1)
			bytes++;
		if (bytes == 16 && IN6_IS_ADDR_LINKLOCAL((struct in6_addr *)found.gid) == link_local)
			add(addresses, &found);
	}
	if (file)
		fclose(file);
	return 0;
}

// Not with getifaddrs(3), which needs a netlink socket: sandboxes often forbid it.
int linux_interface_addresses(struct linux_interface_address *addresses, int capacity)
{
	struct addresses list = { .first = addresses, .capacity = capacity };
	int error = add_ipv4(&list);

	if (error)
		return -error;
	// /proc/net/if_inet6 is in the order of a hash table. Link-local addresses come last.
	error = add_ipv6(&list, false);
	if (!error)
		error = add_ipv6(&list, true);
	return error ? -error : list.count;
}

uint32_t linux_interface_having(const uint8_t gid[16])
{
	const int known = linux_interface_addresses(NULL, 0);
	struct linux_interface_address *addresses;
	uint32_t index = 0;
	int count;

	if (known <= 0 || !(addresses = calloc((size_t)known, sizeof(*addresses))))
		return 0;
	count = linux_interface_addresses(addresses, known);
	for (int next = 0; next < count && next < known && index == 0; next++)
		if (!memcmp(addresses[next].gid, gid, 16))
			index = addresses[next].index;
	free(addresses);
	return index;
}
