// The provider with the lowest cost: a queue pair is a ring in memory, and posted work requests are complete. It does
// only the work of every hardware provider: check the queue, write 64 bytes for each work request, write a doorbell,
// read 64 bytes for each completion. So the overhead of an application's language is visible.
#ifndef SWIFT_RDMA_BENCHMARKS_RING_H
#define SWIFT_RDMA_BENCHMARKS_RING_H

#include <rdma_provider.h>

const struct rdma_provider *rdma_provider_entry_ring(const struct rdma_core *core, struct rdma_reason *why);

#endif
