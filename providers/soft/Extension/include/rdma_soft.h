/*
 * rdma_soft.h - extensions of the provider soft (chapter 7 of rdma_provider.h)
 *
 * "soft-memory" gives a program memory that the other processes of the host can map: one-sided requests of their
 * connections to this one access it with plain loads and stores, atomics included, and need no help of this process. From C:
 *
 *     const struct rdma_soft_memory *memory =
 *         ops->query_extension(context, RDMA_SOFT_MEMORY, RDMA_SOFT_MEMORY_VERSION);
 *
 * ProtectionDomain.makeMemoryRegion(byteCount:) of the Swift library uses it.
 *
 * "soft-management" sends and receives management datagrams (MADs) of communication management (class 0x07) on queue pair 1
 * of the port. The ConnectionManager module uses it. The processes of a host share the port and its queue pair 1. A REQ or
 * SIDR_REQ reaches the process that listens for its service ID; every other message reaches the device whose number is the
 * top byte of the receiver's communication ID (SIDR_REP: request ID). The REJ of a client that gives up before it knows that
 * ID has 0 instead, and so reaches device 0 only: the process that has the request learns it when it accepts, since a REP to
 * a connection that does not exist is answered with a REJ. Fault rules do not apply to MADs.
 */
#ifndef RDMA_SOFT_H
#define RDMA_SOFT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ibv_context;

#define RDMA_SOFT_MEMORY "soft-memory"
#define RDMA_SOFT_MEMORY_VERSION 1

struct rdma_soft_memory {
	uint32_t size;
	uint32_t reserved;

	/* Allocates `length` bytes of zeroed memory, which begin on a page. It is shared (MAP_SHARED). A child of fork(2)
	 * has a copy: what it writes stays its own, but pages that it has not written show what the parent writes later. It becomes a memory region by ibv_reg_mr, as any other memory. Returns NULL and sets errno:
	 * ENOMEM; EFBIG where RLIMIT_FSIZE is less than 256 MiB; EOPNOTSUPP where requests have to be packets, because of
	 * RDMA_SOFT_SHM=0 or RDMA_SOFT_FAULTS, for more than 64 MiB, and with vm.overcommit_memory=2, under which an access
	 * to such memory could fail. Other memory serves in all these cases. */
	void *(*alloc)(struct ibv_context *context, size_t length);
	/* Frees what alloc returned. No memory region may be registered on it any more, and the context must be open. */
	void (*free)(struct ibv_context *context, void *address, size_t length);
};

#define RDMA_SOFT_MANAGEMENT "soft-management"
#define RDMA_SOFT_MANAGEMENT_VERSION 1

/* The bytes of a MAD. */
#define RDMA_SOFT_MAD_SIZE 256

/* The way of a MAD: GIDs of the ports, in network order. */
struct rdma_soft_mad_way {
	uint8_t source[16];
	uint8_t destination[16];
};

struct rdma_soft_management {
	uint32_t size;
	uint32_t reserved;

	/* The number of the device on its host, 0 to 255: the top byte of all communication IDs that it hands out. */
	uint32_t (*device_number)(struct ibv_context *context);
	/* Opens the mailbox of the device, in which all messages but REQ and SIDR_REQ arrive. Returns a non-blocking
	 * descriptor, which the caller polls and closes; or -1 and errno: EADDRINUSE when it is open. */
	int (*open)(struct ibv_context *context);
	/* Takes the REQ and SIDR_REQ of a service ID, at one GID or, with NULL, at each that no other mailbox takes.
	 * Returns as open; EADDRINUSE when a process of this user and host has that mailbox. */
	int (*listen)(struct ibv_context *context, uint64_t service_id, const uint8_t *gid);
	/* Receives from a mailbox. Returns 0, or an errno value: EAGAIN when it is empty, EMSGSIZE when it has dropped a
	 * datagram of another user or another version of soft; more may follow it. */
	int (*receive)(struct ibv_context *context, int mailbox, struct rdma_soft_mad_way *way, void *mad);
	/* Sends a MAD. Returns 0, or an errno value: on this host ECONNREFUSED when no process takes it, and EAGAIN when the
	 * mailbox is full; EADDRNOTAVAIL when the source is not a GID of the device or has no UDP socket; EINVAL when it is
	 * not a message of communication management. */
	int (*send)(struct ibv_context *context, const struct rdma_soft_mad_way *way, const void *mad);
	/* Returns a descriptor that is readable (POLLIN) or reports POLLHUP when the process ends that holds this
	 * communication ID on this host; -1 when the GID is that of another host, or there is no such process. The caller
	 * closes it. */
	int (*watch)(struct ibv_context *context, const uint8_t *gid, uint32_t communication_id);
};

#ifdef __cplusplus
}
#endif

#endif
