#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_interfaces.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
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

static int write_family(const struct ifaddrs *list, int family, struct linux_interface_address *addresses,
			int capacity, int count)
{
	for (const struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
		struct linux_interface_address address = { 0 };

		if (!entry->ifa_addr || entry->ifa_addr->sa_family != family)
			continue;
		address.index = if_nametoindex(entry->ifa_name);
		if (family == AF_INET) {
			address.gid[10] = address.gid[11] = 0xff;
			memcpy(address.gid + 12, &((struct sockaddr_in *)entry->ifa_addr)->sin_addr, 4);
		} else {
			memcpy(address.gid, &((struct sockaddr_in6 *)entry->ifa_addr)->sin6_addr, 16);
		}
		if (count < capacity)
			addresses[count] = address;
		count++;
	}
	return count;
}

int linux_interface_addresses(struct linux_interface_address *addresses, int capacity)
{
	struct ifaddrs *list;
	int count;

	if (getifaddrs(&list) < 0)
		return -errno;
	count = write_family(list, AF_INET, addresses, capacity, 0);
	count = write_family(list, AF_INET6, addresses, capacity, count);
	freeifaddrs(list);
	return count;
}
