/* transfer.c - carries out requests: a copy from one queue pair's memory into another's */
#include "ctest.h"

static unsigned int waiting; /* queue pairs whose oldest request waits for a receive */

/* A piece of memory, already checked. */
struct piece {
	uint8_t *base;
	size_t length;
};

struct message {
	struct piece pieces[CTEST_MAX_SGE + 1];
	int count;
	uint64_t length;
};

/* What became of a request. */
struct outcome {
	bool waits;                /* for a receive: nothing has happened yet */
	enum ibv_wc_status status; /* for the sender */
	bool breaks_peer;          /* the receiving side goes to the error state, too */
	bool access_error;         /* and says why in an asynchronous event */
};

static struct outcome answer(enum ibv_wc_status status)
{
	return (struct outcome){ .status = status };
}

static struct outcome refuse(enum ibv_wc_status status)
{
	return (struct outcome){ .status = status, .breaks_peer = true };
}

static struct outcome forbid(void)
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
		message->pieces[message->count++] = (struct piece){ base, list[i].length };
		message->length += list[i].length;
	}
	return true;
}

static struct message single(void *base, size_t length)
{
	return (struct message){ .pieces = { { base, length } }, .count = 1, .length = length };
}

/* Copies as much as `from` holds; `to` has room for it. */
static void copy(const struct message *to, const struct message *from)
{
	int t = 0, f = 0;
	size_t t_done = 0, f_done = 0;

	while (f < from->count) {
		size_t t_left = to->pieces[t].length - t_done, f_left = from->pieces[f].length - f_done;
		size_t step = t_left < f_left ? t_left : f_left;

		if (step)
			memmove(to->pieces[t].base + t_done, from->pieces[f].base + f_done, step);
		t_done += step;
		f_done += step;
		if (f_done == from->pieces[f].length) {
			f++;
			f_done = 0;
		}
		if (t_done == to->pieces[t].length && f < from->count) {
			t++;
			t_done = 0;
		}
	}
}

static bool receives(const struct ctest_qp *qp)
{
	return qp->verbs.qp_base.state == IBV_QPS_RTR || qp->verbs.qp_base.state == IBV_QPS_RTS;
}

/* The pair at the other end of a connection, if it is one. */
static struct ctest_qp *connected_peer(const struct ctest_qp *qp)
{
	struct ctest_qp *peer = ctest_find_qp(qp->attr.dest_qp_num);

	if (!peer || !receives(peer) || peer->verbs.qp_base.qp_type != IBV_QPT_RC ||
	    peer->attr.dest_qp_num != qp->verbs.qp_base.qp_num)
		return NULL;
	return ctest_has_gid(ctest_context(peer->verbs.qp_base.context), &qp->attr.ah_attr.grh.dgid) ? peer : NULL;
}

/* Puts a message into the buffer of a receive. */
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

/* A receiver that has no buffer makes the sender wait; there are no timers here, so one that may not try
 * for ever fails at once. */
static struct outcome not_ready(const struct ctest_qp *qp)
{
	if (qp->attr.rnr_retry == 7)
		return (struct outcome){ .waits = true };
	return answer(IBV_WC_RNR_RETRY_EXC_ERR);
}

static struct outcome execute_send(struct ctest_qp *qp, const struct ctest_send *send, const struct message *from)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct ctest_recv recv;
	enum ibv_wc_status status;

	if (!peer)
		return answer(IBV_WC_RETRY_EXC_ERR);
	if (!ctest_take_recv(peer, &recv))
		return not_ready(qp);
	status = deliver(peer, &recv, from);
	complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, status, from->length, 0);
	if (status == IBV_WC_LOC_LEN_ERR)
		return refuse(IBV_WC_REM_INV_REQ_ERR);
	return status == IBV_WC_SUCCESS ? answer(status) : refuse(IBV_WC_REM_OP_ERR);
}

/* The peer's memory that a request names, or NULL if that is not allowed. */
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
		return answer(IBV_WC_RETRY_EXC_ERR);
	if (from->length) {
		base = remote_memory(peer, send, from->length, IBV_ACCESS_REMOTE_WRITE);
		if (!base)
			return forbid();
		to = single(base, from->length);
		/* Doing it again when a receive has come changes nothing. */
		copy(&to, from);
	}
	if (send->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
		if (!ctest_take_recv(peer, &recv))
			return not_ready(qp);
		complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, IBV_WC_SUCCESS, from->length, 0);
	}
	return answer(IBV_WC_SUCCESS);
}

static struct outcome execute_read(struct ctest_qp *qp, const struct ctest_send *send, const struct message *to)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct message from;
	void *base;

	if (!peer)
		return answer(IBV_WC_RETRY_EXC_ERR);
	if (to->length) {
		base = remote_memory(peer, send, to->length, IBV_ACCESS_REMOTE_READ);
		if (!base)
			return forbid();
		from = single(base, to->length);
		copy(to, &from);
	}
	return answer(IBV_WC_SUCCESS);
}

static struct outcome execute_atomic(struct ctest_qp *qp, const struct ctest_send *send, const struct message *to)
{
	struct ctest_qp *peer = connected_peer(qp);
	struct message from;
	uint64_t before, after;
	void *target;

	if (!peer)
		return answer(IBV_WC_RETRY_EXC_ERR);
	if (to->length != sizeof(before))
		return answer(IBV_WC_LOC_LEN_ERR);
	if (send->remote_addr % sizeof(before))
		return refuse(IBV_WC_REM_INV_REQ_ERR);
	target = remote_memory(peer, send, sizeof(before), IBV_ACCESS_REMOTE_ATOMIC);
	if (!target)
		return forbid();
	memcpy(&before, target, sizeof(before));
	if (send->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		after = before + send->compare_add;
	else
		after = before == send->compare_add ? send->swap : before;
	memcpy(target, &after, sizeof(after));
	from = single(&before, sizeof(before));
	copy(to, &from);
	return answer(IBV_WC_SUCCESS);
}

/* The header that a datagram brings: RFC 791 in the last 20 of the 40 bytes for RoCEv2 over IPv4. */
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
	grh[6] = 0x1b; /* the next header is IBA's */
	grh[7] = ah->grh.hop_limit;
	memcpy(grh + 8, source, 16);
	memcpy(grh + 24, ah->grh.dgid.raw, 16);
}

/* A datagram that nobody can take is lost, and the sender does not learn of it. */
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
		return answer(IBV_WC_LOC_LEN_ERR);
	if (!peer || !receives(peer) || peer->verbs.qp_base.qp_type != IBV_QPT_UD || peer->attr.qkey != qkey ||
	    !ctest_has_gid(ctest_context(peer->verbs.qp_base.context), &send->ah.grh.dgid) ||
	    !ctest_take_recv(peer, &recv))
		return answer(IBV_WC_SUCCESS);
	write_grh(grh, ctest_context(qp->verbs.qp_base.context), &send->ah, from->length);
	whole = single(grh, CTEST_GRH);
	for (int i = 0; i < from->count; i++)
		whole.pieces[whole.count++] = from->pieces[i];
	whole.length += from->length;
	status = deliver(peer, &recv, &whole);
	complete_recv(peer, &recv, send, qp->verbs.qp_base.qp_num, status, whole.length, IBV_WC_GRH);
	return answer(IBV_WC_SUCCESS);
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
		return answer(IBV_WC_LOC_PROT_ERR);
	send->length = (uint32_t)local.length;
	if (local.length > CTEST_MAX_MESSAGE)
		return answer(IBV_WC_LOC_LEN_ERR);
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

/* Takes the oldest request out of the queue. Only a failure is told to one who asked for no completion. */
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
		outcome = qp->forced ? answer(qp->forced) : execute(qp, oldest(qp));
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
	while (!qp->verbs.qp_base.srq && ctest_take_recv(qp, &recv)) {
		wc.wr_id = recv.wr_id;
		ctest_complete(qp->verbs.qp_base.recv_cq, &wc, false);
	}
}
