// The cheapest provider there can be: a queue pair is a ring in memory; what was posted is complete. It
// does what every hardware provider must do - check the queue, write 64 bytes for each work request, ring
// a doorbell, read 64 bytes for each completion - and nothing else, so that what an application's
// language adds on top of it shows.
#ifndef SWIFT_RDMA_BENCHMARKS_RING_H
#define SWIFT_RDMA_BENCHMARKS_RING_H

#include <rdma_provider.h>

const struct rdma_provider *rdma_provider_entry_ring(const struct rdma_core *core, struct rdma_reason *why);

#endif
