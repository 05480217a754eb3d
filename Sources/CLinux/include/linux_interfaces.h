// Network interfaces and their addresses.
#ifndef SWIFT_RDMA_LINUX_INTERFACES_H
#define SWIFT_RDMA_LINUX_INTERFACES_H

#include <stdbool.h>
#include <stdint.h>

struct linux_interface {
	char name[16];
	uint32_t index;
	uint32_t mtu;
	bool up;
	/// Hardware address; all zero on an interface that has none (lo).
	uint8_t mac[6];
};

/// An address in the form of a GID: IPv6 as it is, IPv4 as ::ffff:a.b.c.d.
struct linux_interface_address {
	uint32_t index;
	uint8_t gid[16];
};

/// 0, or a positive errno value: ENODEV when there is no interface of that name.
int linux_find_interface(const char *name, struct linux_interface *interface);

/// The addresses of all interfaces of this host, IPv4 before IPv6: writes up to `capacity` of them and
/// answers how many there are, or a negative errno value.
int linux_interface_addresses(struct linux_interface_address *addresses, int capacity);

#endif
