// The loops of a C application with which the Swift API is compared.
#ifndef SWIFT_RDMA_BENCHMARKS_LOOPS_H
#define SWIFT_RDMA_BENCHMARKS_LOOPS_H

#include <infiniband/verbs.h>

// The combined ids of all completions that the C loops polled.
extern uint64_t ids_seen;

// Each returns the number of polled completions, so that the compiler cannot remove the work.

// One signaled SEND of one SGE, then its completion.
uint64_t c_post_and_poll(struct ibv_qp *qp, struct ibv_cq *cq, const struct ibv_sge *sge, uint64_t rounds);
// 16 SENDs in one chain, then their 16 completions in one call.
uint64_t c_post_and_poll_16(struct ibv_qp *qp, struct ibv_cq *cq, const struct ibv_sge *sge, uint64_t rounds);
// Only the posts of `count` single SENDs, at most the length of the queue; c_drain polls them, one or 16 per call.
uint64_t c_post(struct ibv_qp *qp, const struct ibv_sge *sge, uint64_t count);
uint64_t c_post_16(struct ibv_qp *qp, const struct ibv_sge *sge, uint64_t chains);
uint64_t c_drain(struct ibv_cq *cq, uint64_t count);
uint64_t c_drain_16(struct ibv_cq *cq, uint64_t count);

#endif
