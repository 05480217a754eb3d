#include "loops.h"

#include <string.h>

uint64_t ids_seen;

static inline int post_one(struct ibv_qp *qp, const struct ibv_sge *sge, uint64_t id)
{
	struct ibv_sge local = *sge;
	struct ibv_send_wr wr, *bad_wr;

	memset(&wr, 0, sizeof(wr));
	wr.wr_id = id;
	wr.sg_list = &local;
	wr.num_sge = 1;
	wr.opcode = IBV_WR_SEND;
	wr.send_flags = IBV_SEND_SIGNALED;
	return ibv_post_send(qp, &wr, &bad_wr);
}

static inline int post_sixteen(struct ibv_qp *qp, const struct ibv_sge *sge, struct ibv_send_wr wr[16],
			       struct ibv_sge sges[16], uint64_t id)
{
	struct ibv_send_wr *bad_wr;
	int i;

	for (i = 0; i < 16; i++) {
		sges[i] = *sge;
		wr[i].wr_id = id + (uint64_t)i;
		wr[i].next = i < 15 ? &wr[i + 1] : NULL;
		wr[i].sg_list = &sges[i];
		wr[i].num_sge = 1;
		wr[i].opcode = IBV_WR_SEND;
		wr[i].send_flags = IBV_SEND_SIGNALED;
	}
	return ibv_post_send(qp, wr, &bad_wr);
}

/* Handles completions as an application does: checks the status of each and uses its id. Without the id, the compiler would
 * turn the loop into vector code, which is not representative. */
static inline int consume(const struct ibv_wc *wc, int count, uint64_t *seen)
{
	for (int i = 0; i < count; i++) {
		if (wc[i].status != IBV_WC_SUCCESS)
			return -1;
		ids_seen ^= wc[i].wr_id;
		*seen += 1;
	}
	return 0;
}

uint64_t c_post_and_poll(struct ibv_qp *qp, struct ibv_cq *cq, const struct ibv_sge *sge, uint64_t rounds)
{
	uint64_t seen = 0;
	struct ibv_wc wc;

	for (uint64_t i = 0; i < rounds; i++) {
		if (post_one(qp, sge, i))
			break;
		if (ibv_poll_cq(cq, 1, &wc) == 1 && consume(&wc, 1, &seen))
			break;
	}
	return seen;
}

uint64_t c_post_and_poll_16(struct ibv_qp *qp, struct ibv_cq *cq, const struct ibv_sge *sge, uint64_t rounds)
{
	struct ibv_send_wr wr[16];
	struct ibv_sge sges[16];
	struct ibv_wc wc[16];
	uint64_t seen = 0;

	memset(wr, 0, sizeof(wr));
	for (uint64_t i = 0; i < rounds; i++) {
		int n;

		if (post_sixteen(qp, sge, wr, sges, 16 * i))
			break;
		n = ibv_poll_cq(cq, 16, wc);
		if (consume(wc, n, &seen))
			break;
	}
	return seen;
}

uint64_t c_post(struct ibv_qp *qp, const struct ibv_sge *sge, uint64_t count)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		if (post_one(qp, sge, i))
			break;
	return i;
}

uint64_t c_post_16(struct ibv_qp *qp, const struct ibv_sge *sge, uint64_t chains)
{
	struct ibv_send_wr wr[16];
	struct ibv_sge sges[16];
	uint64_t i;

	memset(wr, 0, sizeof(wr));
	for (i = 0; i < chains; i++)
		if (post_sixteen(qp, sge, wr, sges, 16 * i))
			break;
	return 16 * i;
}

uint64_t c_drain(struct ibv_cq *cq, uint64_t count)
{
	uint64_t seen = 0;
	struct ibv_wc wc;

	for (uint64_t i = 0; i < count; i++)
		if (ibv_poll_cq(cq, 1, &wc) == 1 && consume(&wc, 1, &seen))
			break;
	return seen;
}

uint64_t c_drain_16(struct ibv_cq *cq, uint64_t count)
{
	struct ibv_wc wc[16];
	uint64_t seen = 0;

	for (uint64_t i = 0; i < count; i += 16) {
		int n = ibv_poll_cq(cq, 16, wc);

		if (consume(wc, n, &seen))
			break;
	}
	return seen;
}
