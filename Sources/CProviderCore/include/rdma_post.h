/*
 * rdma_post.h - the parts of the core's data path that are cheaper in C than in Swift: work requests that are built on
 * the stack, and atomic loads and stores of words that a device or a peer shares. No provider includes it.
 */
#ifndef RDMA_POST_H
#define RDMA_POST_H

#include "rdma_provider.h"

#ifdef __cplusplus
extern "C" {
#endif


static inline void rdma_set_send_wr(struct ibv_send_wr *wr, uint64_t id, enum ibv_wr_opcode opcode,
				    uint32_t immediate, unsigned int flags)
{
	wr->wr_id = id;
	wr->opcode = opcode;
	wr->send_flags = flags;
	wr->imm_data = immediate;
}

/* Sets the operands of an operation: the union ibv_send_wr.wr as four words, and the peer's SRQ number. */
static inline void rdma_set_operands(struct ibv_send_wr *wr, uint64_t word0, uint64_t word1, uint64_t word2,
				     uint64_t word3, uint32_t remote_srqn)
{
	uint64_t words[4] = {word0, word1, word2, word3};

	_Static_assert(sizeof(wr->wr) == sizeof(words), "the union that carries the operands");
	memcpy(&wr->wr, words, sizeof(words));
	wr->qp_type.xrc.remote_srqn = remote_srqn;
}

/* Posts one send work request with `count` scatter/gather elements (ibv_post_send(3)). Returns 0 or an errno value. */
static inline int rdma_post_one_send(struct ibv_qp *qp, uint64_t id, enum ibv_wr_opcode opcode,
				     uint32_t immediate, uint64_t word0, uint64_t word1, uint64_t word2,
				     uint64_t word3, uint32_t remote_srqn, unsigned int flags,
				     const struct ibv_sge *list, int count)
{
	struct ibv_send_wr wr;
	struct ibv_send_wr *bad;

	rdma_set_send_wr(&wr, id, opcode, immediate, flags);
	rdma_set_operands(&wr, word0, word1, word2, word3, remote_srqn);
	wr.next = NULL;
	wr.sg_list = (struct ibv_sge *)list;
	wr.num_sge = count;
	return qp->context->ops.post_send(qp, &wr, &bad);
}

/* The R_Key after `rkey` for a bind of a type 2 memory window (ibv_inc_rkey(3); IBTA volume 1, 10.6.7.2). */
static inline uint32_t rdma_next_rkey(uint32_t rkey)
{
	return (rkey & 0xffffff00u) | ((rkey + 1) & 0xff);
}

/* Posts the bind of a type 2 memory window (IBV_WR_BIND_MW). Returns 0 or an errno value. */
static inline int rdma_post_bind_mw(struct ibv_qp *qp, uint64_t id, unsigned int flags, struct ibv_mw *mw,
				    struct ibv_mw_bind_info info)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_BIND_MW, .send_flags = flags};
	struct ibv_send_wr *bad;

	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = rdma_next_rkey(mw->rkey);
	wr.bind_mw.bind_info = info;
	return qp->context->ops.post_send(qp, &wr, &bad);
}

/* The result of a poll for one work completion: `wc` is valid if `count` is 1. In Swift, the struct would be
 * initialised before the call; here only the provider writes its 48 bytes. */
struct rdma_polled {
	int count;
	struct ibv_wc wc;
};

static inline struct rdma_polled rdma_poll_one(struct ibv_cq *cq)
{
	struct rdma_polled polled;

	polled.count = cq->context->ops.poll_cq(cq, 1, &polled.wc);
	return polled;
}

/* Accesses to memory that a device or a peer accesses at the same time. */
static inline uint64_t rdma_load_acquire(const void *address)
{
	return __atomic_load_n((const uint64_t *)address, __ATOMIC_ACQUIRE);
}

static inline void rdma_store_release(void *address, uint64_t value)
{
	__atomic_store_n((uint64_t *)address, value, __ATOMIC_RELEASE);
}

#ifdef __cplusplus
}
#endif

#endif
