/* send.c - the send queue: work requests from ibv_post_send and from the wr_* functions of struct ibv_qp_ex */
#include "ctest.h"

/* The slot of the next work request that is built. post_lock held. */
static struct ctest_send *staged_slot(struct ctest_qp *qp)
{
	return &qp->sends[(qp->tail + qp->staged) % qp->capacity];
}

static bool has_room(struct ctest_qp *qp)
{
	bool room;

	ctest_lock();
	room = qp->count + qp->staged < qp->capacity;
	ctest_unlock();
	return room;
}

static int check_opcode(const struct ctest_qp *qp, enum ibv_wr_opcode opcode)
{
	switch (opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM:
		return 0;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_RDMA_READ:
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return qp->verbs.qp_base.qp_type == IBV_QPT_RC ? 0 : EINVAL;
	default:
		return EOPNOTSUPP;
	}
}

static bool returns_data(enum ibv_wr_opcode opcode)
{
	return opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
	       opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

static int check_flags(enum ibv_wr_opcode opcode, unsigned int flags)
{
	if (flags & ~(unsigned int)(IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE))
		return EOPNOTSUPP;
	return (flags & IBV_SEND_INLINE) && returns_data(opcode) ? EINVAL : 0;
}

static int copy_inline(struct ctest_qp *qp, struct ctest_send *send, const void *addr, size_t length)
{
	if (length > qp->init.cap.max_inline_data - send->length)
		return EINVAL;
	memcpy(send->inline_data + send->length, addr, length);
	send->length += (uint32_t)length;
	return 0;
}

static int set_sges(struct ctest_qp *qp, struct ctest_send *send, size_t count, const struct ibv_sge *list)
{
	if (count > qp->init.cap.max_send_sge)
		return EINVAL;
	for (size_t i = 0; i < count; i++)
		send->sge[i] = list[i];
	send->num_sge = (int)count;
	return 0;
}

static int set_destination(struct ctest_qp *qp, struct ctest_send *send, const struct ibv_ah *ah, uint32_t qpn,
			   uint32_t qkey)
{
	if (!ah || ah->pd != qp->verbs.qp_base.pd)
		return EINVAL;
	send->ah = ((const struct ctest_ah *)ah)->attr;
	send->has_ah = true;
	send->remote_qpn = qpn;
	send->remote_qkey = qkey;
	return 0;
}

/* Checks and begins the next work request; the caller sets its remaining members. */
static int begin(struct ctest_qp *qp, enum ibv_wr_opcode opcode, uint64_t wr_id, unsigned int flags)
{
	int error = check_opcode(qp, opcode);
	struct ctest_send *send;

	if (!error)
		error = check_flags(opcode, flags);
	if (!error && !has_room(qp))
		error = ENOMEM;
	if (error)
		return error;
	send = staged_slot(qp);
	send->wr_id = wr_id;
	send->opcode = opcode;
	send->flags = flags;
	send->length = 0;
	send->num_sge = 0;
	send->has_ah = false;
	qp->staged++;
	return 0;
}

/* Posts the staged work requests to the device. */
static int commit(struct ctest_qp *qp)
{
	struct ibv_qp *base = &qp->verbs.qp_base;
	int error = 0;

	ctest_lock();
	if (ctest_context(base->context)->failed) {
		error = EIO;
	} else if (base->state != IBV_QPS_RTS && base->state != IBV_QPS_ERR) {
		error = EINVAL;
	} else if (qp->staged) {
		qp->tail = (qp->tail + qp->staged) % qp->capacity;
		qp->count += qp->staged;
		if (base->state == IBV_QPS_ERR)
			ctest_flush(qp);
		else
			ctest_progress(qp);
	}
	qp->staged = 0;
	ctest_unlock();
	return error;
}

/* --- ibv_post_send --- */

static int fill(struct ctest_qp *qp, struct ctest_send *send, const struct ibv_send_wr *wr)
{
	int error = 0;

	send->imm = wr->imm_data;
	if (qp->verbs.qp_base.qp_type == IBV_QPT_UD) {
		error = set_destination(qp, send, wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey);
	} else if (wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		send->remote_addr = wr->wr.atomic.remote_addr;
		send->rkey = wr->wr.atomic.rkey;
		send->compare_add = wr->wr.atomic.compare_add;
		send->swap = wr->wr.atomic.swap;
	} else {
		send->remote_addr = wr->wr.rdma.remote_addr;
		send->rkey = wr->wr.rdma.rkey;
	}
	if (error || wr->num_sge < 0)
		return EINVAL;
	if (!(wr->send_flags & IBV_SEND_INLINE))
		return set_sges(qp, send, (size_t)wr->num_sge, wr->sg_list);
	if ((uint32_t)wr->num_sge > qp->init.cap.max_send_sge)
		return EINVAL;
	for (int i = 0; i < wr->num_sge && !error; i++)
		error = copy_inline(qp, send, (const void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
	return error;
}

int ctest_post_send(struct ibv_qp *verbs, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct ctest_qp *qp = ctest_qp(verbs);
	struct ibv_send_wr *first = wr;
	int error = 0, refused;

	pthread_mutex_lock(&qp->post_lock);
	for (; wr; wr = wr->next) {
		error = begin(qp, wr->opcode, wr->wr_id, wr->send_flags);
		if (error)
			break;
		error = fill(qp, &qp->sends[(qp->tail + qp->staged - 1) % qp->capacity], wr);
		if (error) {
			qp->staged--;
			break;
		}
	}
	refused = commit(qp);
	pthread_mutex_unlock(&qp->post_lock);
	if (refused)
		*bad = first;
	else if (error)
		*bad = wr;
	return refused ? refused : error;
}

/* --- struct ibv_qp_ex --- */

static struct ctest_qp *extended(struct ibv_qp_ex *qp)
{
	return (struct ctest_qp *)qp;
}

/* The work request that is being built, or NULL after an error, which wr_complete returns. */
static struct ctest_send *current(struct ctest_qp *qp)
{
	if (qp->build_error || !qp->staged)
		return NULL;
	return &qp->sends[(qp->tail + qp->staged - 1) % qp->capacity];
}

static struct ctest_send *build(struct ibv_qp_ex *verbs, enum ibv_wr_opcode opcode)
{
	struct ctest_qp *qp = extended(verbs);

	if (!qp->build_error)
		qp->build_error = begin(qp, opcode, verbs->wr_id, verbs->wr_flags & ~(unsigned int)IBV_SEND_INLINE);
	return current(qp);
}

static void build_rdma(struct ibv_qp_ex *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t remote_addr,
		       __be32 imm)
{
	struct ctest_send *send = build(qp, opcode);

	if (!send)
		return;
	send->rkey = rkey;
	send->remote_addr = remote_addr;
	send->imm = imm;
}

static void build_atomic(struct ibv_qp_ex *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t remote_addr,
			 uint64_t compare_add, uint64_t swap)
{
	struct ctest_send *send = build(qp, opcode);

	if (!send)
		return;
	send->rkey = rkey;
	send->remote_addr = remote_addr;
	send->compare_add = compare_add;
	send->swap = swap;
}

static void wr_send(struct ibv_qp_ex *qp)
{
	build(qp, IBV_WR_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *qp, __be32 imm)
{
	struct ctest_send *send = build(qp, IBV_WR_SEND_WITH_IMM);

	if (send)
		send->imm = imm;
}

static void wr_rdma_write(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr)
{
	build_rdma(qp, IBV_WR_RDMA_WRITE, rkey, remote_addr, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr, __be32 imm)
{
	build_rdma(qp, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, remote_addr, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr)
{
	build_rdma(qp, IBV_WR_RDMA_READ, rkey, remote_addr, 0);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr, uint64_t compare,
			      uint64_t swap)
{
	build_atomic(qp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, remote_addr, compare, swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr, uint64_t add)
{
	build_atomic(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, remote_addr, add, 0);
}

static void wr_set_ud_addr(struct ibv_qp_ex *verbs, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	struct ctest_qp *qp = extended(verbs);
	struct ctest_send *send = current(qp);

	if (send)
		qp->build_error = set_destination(qp, send, ah, qpn, qkey);
}

static void wr_set_sge_list(struct ibv_qp_ex *verbs, size_t count, const struct ibv_sge *list)
{
	struct ctest_qp *qp = extended(verbs);
	struct ctest_send *send = current(qp);

	if (send)
		qp->build_error = set_sges(qp, send, count, list);
}

static void wr_set_sge(struct ibv_qp_ex *qp, uint32_t lkey, uint64_t addr, uint32_t length)
{
	const struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };

	wr_set_sge_list(qp, 1, &sge);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *verbs, size_t count, const struct ibv_data_buf *list)
{
	struct ctest_qp *qp = extended(verbs);
	struct ctest_send *send = current(qp);

	if (!send)
		return;
	if (returns_data(send->opcode))
		qp->build_error = EINVAL;
	send->flags |= IBV_SEND_INLINE;
	for (size_t i = 0; i < count && !qp->build_error; i++)
		qp->build_error = copy_inline(qp, send, list[i].addr, list[i].length);
}

static void wr_set_inline_data(struct ibv_qp_ex *qp, void *addr, size_t length)
{
	const struct ibv_data_buf data = { .addr = addr, .length = length };

	wr_set_inline_data_list(qp, 1, &data);
}

static void wr_start(struct ibv_qp_ex *verbs)
{
	struct ctest_qp *qp = extended(verbs);

	pthread_mutex_lock(&qp->post_lock);
	qp->build_error = 0;
}

/* Posts all of the work requests, or, after an error, none. */
static int wr_complete(struct ibv_qp_ex *verbs)
{
	struct ctest_qp *qp = extended(verbs);
	bool needs_ah = qp->verbs.qp_base.qp_type == IBV_QPT_UD;
	int error = qp->build_error;

	for (uint32_t i = 0; needs_ah && !error && i < qp->staged; i++)
		if (!qp->sends[(qp->tail + i) % qp->capacity].has_ah)
			error = EINVAL;
	if (error)
		qp->staged = 0;
	else
		error = commit(qp);
	pthread_mutex_unlock(&qp->post_lock);
	return error;
}

static void wr_abort(struct ibv_qp_ex *verbs)
{
	struct ctest_qp *qp = extended(verbs);

	qp->staged = 0;
	pthread_mutex_unlock(&qp->post_lock);
}

uint64_t ctest_send_ops(void)
{
	return IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND |
	       IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
	       IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
}

void ctest_set_builders(struct ibv_qp_ex *qp, uint64_t send_ops)
{
	qp->wr_start = wr_start;
	qp->wr_complete = wr_complete;
	qp->wr_abort = wr_abort;
	qp->wr_set_sge = wr_set_sge;
	qp->wr_set_sge_list = wr_set_sge_list;
	qp->wr_set_inline_data = wr_set_inline_data;
	qp->wr_set_inline_data_list = wr_set_inline_data_list;
	if (qp->qp_base.qp_type == IBV_QPT_UD)
		qp->wr_set_ud_addr = wr_set_ud_addr;
	if (send_ops & IBV_QP_EX_WITH_SEND)
		qp->wr_send = wr_send;
	if (send_ops & IBV_QP_EX_WITH_SEND_WITH_IMM)
		qp->wr_send_imm = wr_send_imm;
	if (send_ops & IBV_QP_EX_WITH_RDMA_WRITE)
		qp->wr_rdma_write = wr_rdma_write;
	if (send_ops & IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM)
		qp->wr_rdma_write_imm = wr_rdma_write_imm;
	if (send_ops & IBV_QP_EX_WITH_RDMA_READ)
		qp->wr_rdma_read = wr_rdma_read;
	if (send_ops & IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP)
		qp->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	if (send_ops & IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD)
		qp->wr_atomic_fetch_add = wr_atomic_fetch_add;
}
