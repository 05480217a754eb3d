// Mailboxes: datagrams between processes of one user and host, by abstract names (unix(7)), which end with the process
// that binds them. The provider soft passes management datagrams (MADs) between processes so.
//
// The receiver knows the user of the sender. The sender does not know that of the receiver: the process of another user can
// bind a name first. linux_mailbox_open then fails with EADDRINUSE, and messages to the name reach that process.
#ifndef SWIFT_RDMA_LINUX_MAILBOX_H
#define SWIFT_RDMA_LINUX_MAILBOX_H

#include <stddef.h>
#include <stdint.h>

#define LINUX_MAILBOX_NAME_SIZE 96

/// Writes the name of the mailbox of a slot of the provider soft: it contains the effective user ID and the slot's number.
void linux_mailbox_of_slot(int slot, char name[LINUX_MAILBOX_NAME_SIZE]);

/// Writes the name of the mailbox of a service ID at a GID (16 bytes), or at every GID when `gid` is NULL.
void linux_mailbox_of_service(uint64_t service, const uint8_t *gid, char name[LINUX_MAILBOX_NAME_SIZE]);

/// Opens a mailbox (AF_UNIX, SOCK_DGRAM, non-blocking), or, without a name, a socket that only sends. Returns the
/// descriptor, or a negative errno value: EADDRINUSE when the name is in use.
int linux_mailbox_open(const char *name);

/// Sends a message of two parts to the mailbox of that name. Returns 0, or a positive errno value: ECONNREFUSED when there
/// is none, EAGAIN when it is full.
int linux_mailbox_send(int fd, const char *name, const void *head, size_t head_count, const void *bytes, size_t count);

/// Receives a message of this user. Returns its length, or a negative errno value: EAGAIN when there is none, EMSGSIZE when
/// one was dropped, which was of another user or longer than `capacity`.
int linux_mailbox_receive(int fd, void *bytes, size_t capacity);

#endif
