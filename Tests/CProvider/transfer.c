/* transfer.c - executes work requests, by copying from the memory of one queue pair to that of another */
#include "ctest.h"

static unsigned int waiting; /* queue pairs whose oldest request waits for a receive */

/* A range of memory that was checked with ctest_translate. */
struct range {
	uint8_t *base;
	size_t length;
};

struct message {
	struct range ranges[CTEST_MAX_SGE + 1];
	int count;
	uint64_t length;
};

/* The outcome of a work request. */
struct outcome {
	bool waits;                /* the peer has no receive, so the request stays outstanding */
	enum ibv_wc_status status; /* of the sender's completion */
	bool breaks_peer;          /* the peer's queue pair enters the error state too */
	bool access_error;         /* the peer raises IBV_EVENT_QP_ACCESS_ERR */
};

static struct outcome outcome_of(enum ibv_wc_status status)
{
	return (struct outcome){ .status = status };
}

static struct outcome peer_error(enum ibv_wc_status status)
{
	return (struct outcome){ .status = status, .breaks_peer = true };
}

static struct outcome peer_access_error(void)
{
	return (struct outcome){ .status = IBV_WC_REM_ACCESS_ERR, .breaks_peer = true, .access_error = true };
}

static bool gather(struct ibv_pd *pd, const struct ibv_sge *list, int count, unsigned int access,
		   struct message *message)
{
	message->count = 0;
	message->length = 0;
	for (int i = 0; i < count; i++) {
		void *base;

		if (!list[i].length)
			continue;
		base = ctest_translate(pd, list[i].lkey, list[i].addr, list[i].length, access);
		if (!base)
			return false;
		message->ranges[message->count++] = (struct range){ base, list[i].length };
		message->length += list[i].length;
	}
	return true;
}

static struct message single(void *base, size_t length)
{
	return (struct message){ .ranges = { { base, length } }, .count = 1, .length = length };
}

/* Copies all bytes of `from`; `to` has room for them. */
static void copy(const struct message *to, const struct message *from)
{
	int t = 0, f = 0;
	size_t t_done = 0, f_done = 0;

	while (f < from->count) {
		size_t t_left = to->ranges[t].length - t_done, f_left = from->ranges[f].length - f_done;
		size_t step = t_left < f_left ? t_left : f_left;

		if (step)
			memmove(to->ranges[t].base + t_done, from->ranges[f].base + f_done, step);
		t_done += step;
		f_done += step;
		if (f_done == from->ranges[f].length) {
			f++;
			f_done = 0;
		}
		if (t_done == to->ranges[t].length && f < from->count) {
			t++;
			t_done = 0;
		}
	}
}

static bool receives(const struct ctest_qp *qp)
{
	return qp->verbs.qp_base.state == IBV_QPS_RTR || qp->verbs.qp_base.state == IBV_QPS_RTS;
}

/* The peer's queue pair of a connection, or NULL. */
static struct ctest_qp *connected_peer(const struct ctest_qp *qp)
{
	struct ctest_qp *peer = ctest_find_qp(qp->attr.dest_qp_num);

	if (!peer || !receives(peer) || peer->verbs.qp_base.qp_type != IBV_QPT_RC ||
	    peer->attr.dest_qp_num != qp->verbs.qp_base.qp_num)
		return NULL;
	return ctest_has_gid(ctest_context(peer->verbs.qp_base.context), &qp->attr.ah_attr.grh.dgid) ? peer : NULL;
}

/* Writes a message to the buffers of a receive. */
static enum ibv_wc_status deliver(struct ctest_qp *peer, const struct ctest_recv *recv, const struct message *from)
{
	struct message to;

	if (!gather(peer->verbs.qp_base.pd, recv->sge, recv->num_sge, IBV_ACCESS_LOCAL_WRITE, &to))
		return IBV_WC_LOC_PROT_ERR;
	if (to.length < from->length)
		return IBV_WC_LOC_LEN_ERR;
	copy(&to, from);
	return IBV_WC_SUCCESS;
}

static void complete_recv(struct ctest_qp *peer, const struct ctest_recv *recv, const struct ctest_send *send,
			  uint32_t source, enum ibv_wc_status status, uint64_t length, unsigned int wc_flags)
{
	bool with_imm = send->opcode == IBV_WR_SEND_WITH_IMM || send->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	const struct ibv_wc wc = {
		.wr_id = recv->wr_id,
		.status = status,
		.opcode = send->opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV,
		.byte_len = (uint32_t)length,
		.imm_data = with_imm ? send->imm : 0,
		.qp_num = peer->verbs.qp_base.qp_num,
		.src_qp = source,
		.wc_flags = wc_flags | (with_imm ? IBV_WC_WITH_IMM : 0),
	};

	ctest_complete(peer->verbs.qp_base.recv_cq, &wc, send->flags & IBV_SEND_SOLICITED);
}

/* The peer has no posted receive. With rnr_retry 7 (infinite) the send waits for one. There are no timers, so with a
 * finite rnr_retry it fails at once. */
static struct outcome not_ready(const struct ctest_qp *qp)
{
	if (qp->attr.rnr_retry == 7)
		return (struct outcome){ .waits = true };
	return outcome_of(IBV_WC_RNR_RETRY_EXC_ERR);
}

static struct outcome execute_send(struct ctest_qp *qp, const struct ctest_send *send, const struct message *from)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct ctest_recv recv;
	enum ibv_wc_status status;

	if (!peer)
		return outcome_of(IBV_WC_RETRY_EXC_ERR);
	if (!ctest_consume_recv(peer, &recv))
		return not_ready(qp);
	status = deliver(peer, &recv, from);
	complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, status, from->length, 0);
	if (status == IBV_WC_LOC_LEN_ERR)
		return peer_error(IBV_WC_REM_INV_REQ_ERR);
	return status == IBV_WC_SUCCESS ? outcome_of(status) : peer_error(IBV_WC_REM_OP_ERR);
}

/* The peer's memory that a request addresses, or NULL if the access is not allowed. */
static void *remote_memory(const struct ctest_qp *peer, const struct ctest_send *send, uint64_t length,
			   unsigned int access)
{
	if (!(peer->attr.qp_access_flags & access))
		return NULL;
	return ctest_translate(peer->verbs.qp_base.pd, send->rkey, send->remote_addr, (uint32_t)length, access);
}

static struct outcome execute_write(struct ctest_qp *qp, const struct ctest_send *send, const struct message *from)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct ctest_recv recv;
	struct message to;
	void *base;

	if (!peer)
		return outcome_of(IBV_WC_RETRY_EXC_ERR);
	if (from->length) {
		base = remote_memory(peer, send, from->length, IBV_ACCESS_REMOTE_WRITE);
		if (!base)
			return peer_access_error();
		to = single(base, from->length);
		/* If the request waits for a receive, it is executed again and writes the same data. */
		copy(&to, from);
	}
	if (send->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
		if (!ctest_consume_recv(peer, &recv))
			return not_ready(qp);
		complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, IBV_WC_SUCCESS, from->length, 0);
	}
	return outcome_of(IBV_WC_SUCCESS);
}

static struct outcome execute_read(struct ctest_qp *qp, const struct ctest_send *send, const struct message *to)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct message from;
	void *base;

	if (!peer)
		return outcome_of(IBV_WC_RETRY_EXC_ERR);
	if (to->length) {
		base = remote_memory(peer, send, to->length, IBV_ACCESS_REMOTE_READ);
		if (!base)
			return peer_access_error();
		from = single(base, to->length);
		copy(to, &from);
	}
	return outcome_of(IBV_WC_SUCCESS);
}

static struct outcome execute_atomic(struct ctest_qp *qp, const struct ctest_send *send, const struct message *to)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct message from;
	uint64_t before, after;
	void *target;

	if (!peer)
		return outcome_of(IBV_WC_RETRY_EXC_ERR);
	if (to->length != sizeof(before))
		return outcome_of(IBV_WC_LOC_LEN_ERR);
	if (send->remote_addr % sizeof(before))
		return peer_error(IBV_WC_REM_INV_REQ_ERR);
	target = remote_memory(peer, send, sizeof(before), IBV_ACCESS_REMOTE_ATOMIC);
	if (!target)
		return peer_access_error();
	memcpy(&before, target, sizeof(before));
	if (send->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		after = before + send->compare_add;
	else
		after = before == send->compare_add ? send->swap : before;
	memcpy(target, &after, sizeof(after));
	from = single(&before, sizeof(before));
	copy(to, &from);
	return outcome_of(IBV_WC_SUCCESS);
}

/* Writes the GRH area of a datagram: for RoCEv2 over IPv4, the IPv4 header (RFC 791) in the last 20 of the 40 bytes. */
static void write_grh(uint8_t *grh, const struct ctest_context *context, const struct ibv_ah_attr *ah,
		      uint64_t length)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	const uint8_t *source = context->gids[ah->grh.sgid_index].raw;

	memset(grh, 0, CTEST_GRH);
	if (!memcmp(ah->grh.dgid.raw, mapped, sizeof(mapped))) {
		grh[20] = 0x45;
		grh[29] = 17; /* UDP */
		memcpy(grh + 32, source + 12, 4);
		memcpy(grh + 36, ah->grh.dgid.raw + 12, 4);
		return;
	}
	grh[0] = 0x60;
	grh[4] = (uint8_t)(length >> 8);
	grh[5] = (uint8_t)length;
	grh[6] = 0x1b; /* the next header is a BTH */
	grh[7] = ah->grh.hop_limit;
	memcpy(grh + 8, source, 16);
	memcpy(grh + 24, ah->grh.dgid.raw, 16);
}

/* A datagram that cannot be received is dropped, and the send completes with IBV_WC_SUCCESS. */
static struct outcome execute_datagram(struct ctest_qp *qp, const struct ctest_send *send,
				       const struct message *from)
{
	struct ctest_qp *peer = ctest_find_qp(send->remote_qpn);
	uint32_t qkey = send->remote_qkey & 0x80000000 ? qp->attr.qkey : send->remote_qkey;
	uint8_t grh[CTEST_GRH];
	struct message whole;
	struct ctest_recv recv;
	enum ibv_wc_status status;

	if (from->length > CTEST_MTU)
		return outcome_of(IBV_WC_LOC_LEN_ERR);
	if (!peer || !receives(peer) || peer->verbs.qp_base.qp_type != IBV_QPT_UD || peer->attr.qkey != qkey ||
	    !ctest_has_gid(ctest_context(peer->verbs.qp_base.context), &send->ah.grh.dgid) ||
	    !ctest_consume_recv(peer, &recv))
		return outcome_of(IBV_WC_SUCCESS);
	write_grh(grh, ctest_context(qp->verbs.qp_base.context), &send->ah, from->length);
	whole = single(grh, CTEST_GRH);
	for (int i = 0; i < from->count; i++)
		whole.ranges[whole.count++] = from->ranges[i];
	whole.length += from->length;
	status = deliver(peer, &recv, &whole);
	complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, status, whole.length, IBV_WC_GRH);
	return outcome_of(IBV_WC_SUCCESS);
}

static struct outcome execute(struct ctest_qp *qp, struct ctest_send *send)
{
	bool fetches = send->opcode == IBV_WR_RDMA_READ || send->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
		       send->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
	struct message local;

	if (send->flags & IBV_SEND_INLINE)
		local = single(send->inline_data, send->length);
	else if (!gather(qp->verbs.qp_base.pd, send->sge, send->num_sge, fetches ? IBV_ACCESS_LOCAL_WRITE : 0,
			 &local))
		return outcome_of(IBV_WC_LOC_PROT_ERR);
	send->length = (uint32_t)local.length;
	if (local.length > CTEST_MAX_MESSAGE)
		return outcome_of(IBV_WC_LOC_LEN_ERR);
	if (qp->verbs.qp_base.qp_type == IBV_QPT_UD)
		return execute_datagram(qp, send, &local);
	switch (send->opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM:
		return execute_send(qp, send, &local);
	case IBV_WR_RDMA_READ:
		return execute_read(qp, send, &local);
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return execute_atomic(qp, send, &local);
	default:
		return execute_write(qp, send, &local);
	}
}

static enum ibv_wc_opcode completed_as(enum ibv_wr_opcode opcode)
{
	switch (opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return IBV_WC_RDMA_WRITE;
	case IBV_WR_RDMA_READ:
		return IBV_WC_RDMA_READ;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		return IBV_WC_COMP_SWAP;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return IBV_WC_FETCH_ADD;
	default:
		return IBV_WC_SEND;
	}
}

static struct ctest_send *oldest(struct ctest_qp *qp)
{
	return &qp->sends[(qp->tail + qp->capacity - qp->count) % qp->capacity];
}

/* Completes the oldest work request. An unsignaled request produces a completion only when it fails. */
static void finish(struct ctest_qp *qp, enum ibv_wc_status status)
{
	const struct ctest_send *send = oldest(qp);
	const struct ibv_wc wc = {
		.wr_id = send->wr_id,
		.status = status,
		.opcode = completed_as(send->opcode),
		.byte_len = send->length,
		.qp_num = qp->verbs.qp_base.qp_num,
	};

	qp->count--;
	if (status != IBV_WC_SUCCESS || qp->init.sq_sig_all || (send->flags & IBV_SEND_SIGNALED))
		ctest_complete(qp->verbs.qp_base.send_cq, &wc, false);
}

static void set_waiting(struct ctest_qp *qp, bool waits)
{
	if (waits != qp->waits)
		waiting += waits ? 1 : -1u;
	qp->waits = waits;
}

void ctest_progress(struct ctest_qp *qp)
{
	struct ctest_qp *peer;
	struct outcome outcome = { .waits = false };

	while (qp->count && qp->verbs.qp_base.state == IBV_QPS_RTS) {
		outcome = qp->forced ? outcome_of(qp->forced) : execute(qp, oldest(qp));
		if (outcome.waits)
			break;
		qp->forced = IBV_WC_SUCCESS;
		peer = outcome.breaks_peer ? connected_peer(qp) : NULL;
		finish(qp, outcome.status);
		if (outcome.status != IBV_WC_SUCCESS)
			ctest_enter_error(qp);
		if (peer && outcome.access_error)
			ctest_raise(peer->verbs.qp_base.context, IBV_EVENT_QP_ACCESS_ERR, peer);
		if (peer)
			ctest_enter_error(peer);
	}
	set_waiting(qp, outcome.waits);
}

void ctest_progress_all(void)
{
	struct ctest_qp *qp = NULL;

	while (waiting && (qp = ctest_next_qp(qp)))
		if (qp->waits)
			ctest_progress(qp);
}

void ctest_flush(struct ctest_qp *qp)
{
	struct ctest_recv recv;
	struct ibv_wc wc = {
		.status = IBV_WC_WR_FLUSH_ERR,
		.opcode = IBV_WC_RECV,
		.qp_num = qp->verbs.qp_base.qp_num,
	};

	set_waiting(qp, false);
	while (qp->count)
		finish(qp, IBV_WC_WR_FLUSH_ERR);
	while (!qp->verbs.qp_base.srq && ctest_consume_recv(qp, &recv)) {
		wc.wr_id = recv.wr_id;
		ctest_complete(qp->verbs.qp_base.recv_cq, &wc, false);
	}
}
