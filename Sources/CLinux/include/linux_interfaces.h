// Network interfaces and their addresses.
#ifndef SWIFT_RDMA_LINUX_INTERFACES_H
#define SWIFT_RDMA_LINUX_INTERFACES_H

#include <stdbool.h>
#include <stdint.h>

struct linux_interface {
	char name[16];
	uint32_t index;
	uint32_t mtu;
	/// Administratively up (IFF_UP).
	bool up;
	/// Up, and has a carrier (ETHTOOL_GLINK, or IFF_RUNNING).
	bool running;
	/// Hardware address; all zero on an interface that has none (lo).
	uint8_t mac[6];
};

/// An address as a GID: IPv6 addresses unchanged, IPv4 addresses as ::ffff:a.b.c.d.
struct linux_interface_address {
	uint32_t index;
	uint8_t gid[16];
	/// IPv6 duplicate address detection is in progress (IFA_F_TENTATIVE) or has failed (IFA_F_DADFAILED): no socket
	/// can be bound to the address.
	bool unusable;
};

/// Reads the interface with this name. Returns 0, or a positive errno value: ENODEV when there is no such interface;
/// EPERM when a sandbox forbids the call; EMFILE and other errors of socket(2) and netdevice(7).
int linux_find_interface(const char *name, struct linux_interface *interface);

/// Reads an interface again that linux_find_interface found: by its index, since it may have been renamed; when no
/// interface has that index, by its name. Returns 0, or a positive errno value with the struct unchanged: ENODEV when
/// no interface has the index or the name.
int linux_follow_interface(struct linux_interface *interface);

/// Creates a netlink socket that is readable when a link or an address of this network namespace has changed. Returns
/// the descriptor, or a negative errno value.
int linux_watch_interfaces(void);

/// Reads all messages of that socket. Returns whether there were any.
bool linux_interfaces_changed(int fd);

/// Writes the name of the interface with this index. Returns 0, or a positive errno value.
int linux_interface_name(uint32_t index, char name[16]);

/// Writes up to `capacity` addresses of all interfaces of this host, IPv4 before IPv6. Returns the number of existing
/// addresses, or a negative errno value.
int linux_interface_addresses(struct linux_interface_address *addresses, int capacity);

/// The index of the interface that has that address; 0 when no interface has it.
uint32_t linux_interface_having(const uint8_t gid[16]);

#endif
