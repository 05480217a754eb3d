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

#ifdef __cplusplus
}
#endif

#endif
