// Communication between processes of one host: sockets with abstract names (unix(7)), which end with the process that
// binds them, and sealed shared memory whose descriptor is sent over such a socket.
#ifndef SWIFT_RDMA_LINUX_LOCAL_H
#define SWIFT_RDMA_LINUX_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Writes the abstract name of a slot of the provider soft: it contains the effective user ID and the slot's number.
void linux_slot_name(int slot, char name[64]);

/// Listens for connections (AF_UNIX, SOCK_SEQPACKET, non-blocking) at an abstract name of this network namespace.
/// Returns the descriptor, or a negative errno value: EADDRINUSE when the name is in use.
int linux_local_listen(const char *name);

/// Accepts a connection. Returns the descriptor, or a negative errno value: EAGAIN when none is pending, EPERM when the
/// peer belongs to another user (SO_PEERCRED); then the connection is closed.
int linux_local_accept(int listener);

/// Connects to a name. Returns the non-blocking descriptor, or a negative errno value: ECONNREFUSED when no socket
/// listens there, EPERM when the listener belongs to another user (SO_PEERCRED), EAGAIN when its backlog is full.
int linux_local_connect(const char *name);

/// Sends a message of two parts, with a descriptor unless that is negative. Returns 0, or a positive errno value:
/// EAGAIN when the receiver's queue is full.
int linux_local_send(int fd, const void *head, size_t head_count, const void *bytes, size_t count, int descriptor);

/// Receives a message. Returns its length, or a negative errno value: EAGAIN when none is queued, EPIPE when the peer
/// has closed the connection, EMSGSIZE when the message is longer than `capacity`. `*descriptor` is the descriptor that
/// was passed with it, or -1. It is -2 when several were passed, which are closed, or when one could not be received
/// (RLIMIT_NOFILE).
int linux_local_receive(int fd, void *bytes, size_t capacity, int *descriptor);

/// The message (8 bytes) with which a process of the same user asks an open device of the provider soft for its counters,
/// on a connection to its slot. The reply is a message of text, at most LINUX_LOCAL_COUNTERS_SIZE bytes: lines of a name,
/// a space and a value. The first line is `device NAME`; the values of the others are decimal. It has no layout number,
/// so that other versions understand it: a line can be added or left out.
#define LINUX_LOCAL_COUNTERS 0x7265746E756F632FULL
#define LINUX_LOCAL_COUNTERS_SIZE 4096

/// The process ID of the peer of a connection, as this PID namespace sees it: for linux_local_connect, of the process
/// that listens. 0 when it is not known.
int linux_local_process(int fd);

/// Whether the peer has closed the connection.
bool linux_local_has_ended(int fd);

/// Whether a message can be sent on the connection without EAGAIN, or the connection has ended.
bool linux_local_has_room(int fd);

/// Creates a file in memory of this size that can be sealed (memfd_create(2)). `prepare` reserves, seals and maps it, and
/// returns 0 or a positive errno value. Returns 0, its descriptor and address, or a positive errno value: EFBIG when
/// RLIMIT_FSIZE is less than the size.
int linux_make_memory(const char *name, size_t size, int *fd, void **address, int (*prepare)(int, size_t, void **));

/// Creates shared memory of this size (memfd_create(2)): reserved, mapped and sealed, so that its size is fixed.
/// Returns 0 and its descriptor and address, or a positive errno value: EFBIG when RLIMIT_FSIZE is less than the size.
int linux_make_shared_memory(const char *name, size_t size, int *fd, void **address);

/// Maps such memory of another process, after a check of its size and seals. Returns 0, or a positive errno value:
/// EINVAL when the descriptor is not a sealed memory file of this size.
int linux_map_shared_memory(int fd, size_t size, void **address);

/// Creates a file in memory (memfd_create(2)) of this size, maps it for writing, and seals it, so that its size is fixed
/// and other processes can map it for reading only (since Linux 5.1). Memory is reserved for its first page. Returns 0,
/// or a positive errno value: EFBIG when RLIMIT_FSIZE is less than the size.
int linux_make_table(const char *name, size_t size, int *fd, void **address);

/// Reserves memory for a part of such a file. Returns whether there is enough.
bool linux_reserve_table(int fd, uint64_t offset, uint64_t count);

/// Maps such a file of another process for reading, after a check of its seals. Returns 0, its address and its size, or
/// a positive errno value: EINVAL when the descriptor is not a sealed memory file.
int linux_map_table(int fd, size_t *size, void **address);

/// Maps such a file of another process for reading and writing; a child of fork(2) does not inherit it. Returns as
/// linux_map_table.
int linux_map_arena(int fd, size_t *size, void **address);

/// Creates a ready list: a level-triggered epoll(7) descriptor. Returns it, or a negative errno value.
int linux_ready_list(void);
/// Adds a descriptor. linux_ready returns `tag` while the descriptor is readable or its peer has closed it. Returns 0,
/// or a positive errno value.
int linux_ready_add(int list, int fd, uint64_t tag);
/// Removes a descriptor.
void linux_ready_remove(int list, int fd);
/// Writes the tags of up to `capacity` (at most 16) descriptors that are ready, and returns their number. Does not
/// wait.
int linux_ready(int list, uint64_t *tags, int capacity);

#endif
