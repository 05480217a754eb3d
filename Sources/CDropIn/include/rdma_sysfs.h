/*
 * rdma_sysfs.h - between libibverbs.so.1 of this package and libverbs-sysfs.so, which verbs run preloads: what programs
 * that read sysfs themselves find there about a software device.
 */
#ifndef RDMA_SYSFS_H
#define RDMA_SYSFS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RDMA_SYSFS_PATH "/sys/class/infiniband"

enum rdma_sysfs_kind {
	/* Nothing of ours is there. */
	RDMA_SYSFS_NONE,
	/* The text is the names of its entries; a line feed follows each one, and a slash precedes it if the entry is a
	 * directory. */
	RDMA_SYSFS_DIRECTORY,
	/* The text is the contents. */
	RDMA_SYSFS_FILE,
};

/* A text is at most this long. */
#define RDMA_SYSFS_SIZE 16384

/*
 * Looks a path below /sys/class/infiniband up, such as "soft0/ports/1/state", or "" for the list of our devices; without a slash
 * at its ends, "." and "..". Writes the text and its length, at most RDMA_SYSFS_SIZE. Returns a kind, or a negative errno value
 * with which a file cannot be read, as the kernel's: EINVAL for the type of a GID table entry that is empty.
 */
int swift_rdma_sysfs(const char *path, char *text, size_t *length);

/* ---- /dev/infiniband/rdma_cm, through which librdmacm works (<rdma/rdma_user_cm.h>) ---- */

/* Whether this library serves the node: the program sees software devices only, or the kernel has no RDMA device or no node. */
bool swift_rdma_cm_serves(void);

/*
 * open(2) of the node. Returns a descriptor, or a negative errno value: EBUSY in a signal handler that interrupts this library,
 * EPERM in a child of fork(2). The descriptor belongs to this library until swift_rdma_cm_close, and its number identifies the
 * open file. The program has copies of it, from which read(2) takes the count of a waiting event.
 */
int swift_rdma_cm_open(int flags);

/*
 * write(2) of a command to an open file. Returns 0, or a negative errno value as swift_rdma_cm_open. Before GET_EVENT the caller
 * reads the count of an event from its copy of the descriptor, which blocks or not. EAGAIN: the event is gone, read again. EBUSY:
 * the event still waits, and the caller adds its count again. With any other error the event still waits, and is counted. In MIGRATE_ID, `fd` is the number of an open file.
 */
int swift_rdma_cm_write(int file, const void *bytes, size_t length);

/*
 * The last copy of the descriptor is closed. Returns 0, or a negative errno value as swift_rdma_cm_open. EBUSY: the file is
 * open still, and the caller closes it later.
 */
int swift_rdma_cm_close(int file);

/*
 * The first descriptor of the connection manager with a number from `first` to `last`, which the program is not to close; -1 if
 * there is none. After swift_rdma_cm_open, signal handlers may call it.
 */
int swift_rdma_cm_own(unsigned first, unsigned last);

#ifdef __cplusplus
}
#endif

#endif
