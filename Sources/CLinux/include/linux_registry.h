// A private directory of this user, files in it that several processes map, and locks that the kernel gives back when
// their holder dies.
#ifndef SWIFT_RDMA_LINUX_REGISTRY_H
#define SWIFT_RDMA_LINUX_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Makes the directory PARENT/swift-rdma-UID-NETNS, where NETNS is the inode of the network namespace, or finds it,
/// and opens it. It must be a directory, no link, of this user, and nobody else's to enter: EPERM otherwise. The
/// descriptor, or a negative errno value; the path goes to `path`.
int linux_private_directory(const char *parent, char *path, size_t capacity);

/// Opens a file of that directory for reading and writing: a regular file of this user. `create` 0: it must exist;
/// 1: it may; 2: it must not. The descriptor, or a negative errno value.
int linux_private_file(int directory, const char *name, int create);

/// A nameless file in memory, or a negative errno value.
int linux_memory_file(const char *name);

/// 0, or a positive errno value.
int linux_resize_file(int fd, uint64_t size);
int64_t linux_file_size(int fd);

/// Gives part of a file memory of its own, so that touching it cannot fail later: 0, ENOSPC, ...
int linux_reserve_file(int fd, uint64_t offset, uint64_t size);
/// Takes the memory away again; the part then reads as zeros.
void linux_punch_file(int fd, uint64_t offset, uint64_t size);

int linux_rename_in(int directory, const char *from, const char *to);
void linux_unlink_in(int directory, const char *name);

/// Locks one byte of a file for this open file description: 0, EAGAIN when another has it, or another errno value.
int linux_lock_byte(int fd, uint64_t offset);
void linux_unlock_byte(int fd, uint64_t offset);
/// Whether another open file description holds the byte.
bool linux_byte_is_locked(int fd, uint64_t offset);

/// Maps part of a file, shared, readable and writable; null and errno when that fails.
void *linux_map_file(int fd, uint64_t offset, size_t size);
void linux_unmap(void *address, size_t size);

/// A datagram socket bound to a path, non-blocking, whose messages only say "look". The descriptor, or a negative errno
/// value.
int linux_bell(const char *path);
/// Rings a bell. A bell with messages waiting needs no more: true also then. False when nobody is there.
bool linux_ring_bell(int fd, const char *path);
/// Takes all messages.
void linux_silence_bell(int fd);

#endif
