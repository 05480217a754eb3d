/* Send queues: post_send and bind_mw. */
#include "crxe.h"

#include <unistd.h>

#define BIT(opcode) (1u << (opcode))

uint32_t crxe_opcodes(enum ibv_qp_type type)
{
	const uint32_t datagram = BIT(IBV_WR_SEND) | BIT(IBV_WR_SEND_WITH_IMM);
	const uint32_t connected = datagram | BIT(IBV_WR_RDMA_WRITE) | BIT(IBV_WR_RDMA_WRITE_WITH_IMM) |
				   BIT(IBV_WR_LOCAL_INV) | BIT(IBV_WR_BIND_MW);

	switch (type) {
	case IBV_QPT_RC:
		return connected | BIT(IBV_WR_SEND_WITH_INV) | BIT(IBV_WR_RDMA_READ) | BIT(IBV_WR_ATOMIC_CMP_AND_SWP) |
		       BIT(IBV_WR_ATOMIC_FETCH_AND_ADD);
	case IBV_QPT_UC:
		return connected;
	case IBV_QPT_UD:
		return datagram;
	default:
		return 0;
	}
}

bool crxe_may_be_inline(enum ibv_wr_opcode opcode)
{
	return BIT(opcode) & (BIT(IBV_WR_SEND) | BIT(IBV_WR_SEND_WITH_IMM) | BIT(IBV_WR_SEND_WITH_INV) |
			      BIT(IBV_WR_RDMA_WRITE) | BIT(IBV_WR_RDMA_WRITE_WITH_IMM));
}

/* --- WQEs --- */

void crxe_begin_wqe(struct crxe_qp *qp, struct rxe_send_wqe *wqe, uint64_t wr_id, enum ibv_wr_opcode opcode,
		    unsigned int flags)
{
	memset(wqe, 0, sizeof(*wqe));
	wqe->wr.wr_id = wr_id;
	wqe->wr.opcode = opcode;
	wqe->wr.send_flags = flags;
	wqe->ssn = qp->ssn++;
}

int crxe_copy_sges(struct rxe_dma_info *dma, const struct ibv_sge *list, uint32_t count)
{
	uint64_t length = 0;
	uint32_t index;

	if (count && !list)
		return EINVAL;
	for (index = 0; index < count; index++) {
		dma->sge[index].addr = list[index].addr;
		dma->sge[index].length = list[index].length;
		dma->sge[index].lkey = list[index].lkey;
		length += list[index].length;
	}
	if (length > UINT32_MAX)
		return EINVAL;
	dma->length = (uint32_t)length;
	dma->resid = (uint32_t)length;
	dma->num_sge = count;
	return 0;
}

static int copy_inline(struct rxe_dma_info *dma, const struct ibv_sge *list, uint32_t count, uint32_t room)
{
	uint32_t length = 0, index;

	if (count && !list)
		return EINVAL;
	for (index = 0; index < count; index++) {
		if (list[index].length > room - length || (list[index].length && !list[index].addr))
			return EINVAL;
		if (list[index].length)
			memcpy(dma->inline_data + length, (const void *)(uintptr_t)list[index].addr, list[index].length);
		length += list[index].length;
	}
	dma->length = length;
	dma->resid = length;
	return 0;
}

void crxe_write_binding(struct rxe_send_wqe *wqe, const struct ibv_mw *mw, uint32_t rkey,
			const struct ibv_mw_bind_info *info)
{
	wqe->wr.wr.mw.addr = info->addr;
	wqe->wr.wr.mw.length = info->length;
	wqe->wr.wr.mw.mr_lkey = info->mr->lkey;
	wqe->wr.wr.mw.mw_rkey = mw->rkey;
	wqe->wr.wr.mw.rkey = rkey;
	wqe->wr.wr.mw.access = info->mw_access_flags;
}

/* Writes the operands of an RDMA or atomic operation, a datagram, an invalidation or a binding. Returns 0 or EINVAL. */
static int write_operands(const struct crxe_qp *qp, struct rxe_send_wqe *wqe, const struct ibv_send_wr *wr)
{
	if (qp->verbs.qp_base.qp_type == IBV_QPT_UD) {
		if (!wr->wr.ud.ah)
			return EINVAL;
		wqe->wr.wr.ud.remote_qpn = wr->wr.ud.remote_qpn;
		wqe->wr.wr.ud.remote_qkey = wr->wr.ud.remote_qkey;
		wqe->wr.wr.ud.ah_num = ((const struct crxe_ah *)wr->wr.ud.ah)->number;
		return 0;
	}
	switch (wr->opcode) {
	case IBV_WR_BIND_MW:
		if (wr->num_sge || !wr->bind_mw.mw || !wr->bind_mw.bind_info.mr)
			return EINVAL;
		wqe->wr.ex.imm_data = 0;
		crxe_write_binding(wqe, wr->bind_mw.mw, wr->bind_mw.rkey, &wr->bind_mw.bind_info);
		return 0;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		if (wqe->dma.length < 8 || wr->wr.atomic.remote_addr & 7)
			return EINVAL;
		wqe->wr.wr.atomic.remote_addr = wr->wr.atomic.remote_addr;
		wqe->wr.wr.atomic.compare_add = wr->wr.atomic.compare_add;
		wqe->wr.wr.atomic.swap = wr->wr.atomic.swap;
		wqe->wr.wr.atomic.rkey = wr->wr.atomic.rkey;
		wqe->iova = wr->wr.atomic.remote_addr;
		return 0;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_RDMA_READ:
		wqe->wr.wr.rdma.remote_addr = wr->wr.rdma.remote_addr;
		wqe->wr.wr.rdma.rkey = wr->wr.rdma.rkey;
		wqe->iova = wr->wr.rdma.remote_addr;
		return 0;
	default:
		return 0;
	}
}

/* Writes a work request. Returns 0, EINVAL or EOPNOTSUPP; after an error the WQE must not be posted. */
static int write_wqe(struct crxe_qp *qp, struct rxe_send_wqe *wqe, const struct ibv_send_wr *wr)
{
	const unsigned int common = IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED;
	int error;

	if ((unsigned int)wr->opcode > 31 || !(qp->opcodes & BIT(wr->opcode)) || wr->num_sge < 0 ||
	    (uint32_t)wr->num_sge > qp->max_sge)
		return EINVAL;
	if (wr->send_flags & ~(common | IBV_SEND_INLINE))
		return EOPNOTSUPP;
	crxe_begin_wqe(qp, wqe, wr->wr_id, wr->opcode, wr->send_flags);
	if (!(wr->send_flags & IBV_SEND_INLINE))
		error = crxe_copy_sges(&wqe->dma, wr->sg_list, (uint32_t)wr->num_sge);
	else if (crxe_may_be_inline(wr->opcode))
		error = copy_inline(&wqe->dma, wr->sg_list, (uint32_t)wr->num_sge, qp->max_inline);
	else
		error = EINVAL;
	if (error)
		return error;
	/* Immediate data, or the rkey to invalidate: a union in both structs. */
	wqe->wr.ex.imm_data = wr->imm_data;
	return write_operands(qp, wqe, wr);
}

/* --- posting --- */

static int ring_doorbell(struct crxe_qp *qp)
{
	const ssize_t written = write(qp->verbs.qp_base.context->cmd_fd, &qp->doorbell, sizeof(qp->doorbell));

	if (written == (ssize_t)sizeof(qp->doorbell))
		return 0;
	return written < 0 ? errno : EIO;
}

int crxe_commit(struct crxe_qp *qp, uint32_t end)
{
	uint32_t *index = &qp->sends.buf->producer_index;
	const uint32_t start = crxe_own(index);
	int error;

	crxe_publish(index, end);
	crxe_unlock(&qp->lock);
	/* Outside the lock: a doorbell covers all requests that are in the queue. */
	error = ring_doorbell(qp);
	if (!error)
		return 0;
	/* Takes the requests back, unless another thread has posted further ones. */
	crxe_lock(&qp->lock);
	if (crxe_own(index) == end)
		crxe_publish(index, start);
	crxe_unlock(&qp->lock);
	return error;
}

int crxe_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
	struct ibv_send_wr *const first = wr;
	struct crxe_qp *qp = crxe_qp(ibqp);
	struct crxe_queue *queue = &qp->sends;
	uint32_t start, next, consumer;
	int error = 0, doorbell;

	if (crxe_failed(ibqp->context) || !crxe_may_send(ibqp)) {
		if (bad_wr)
			*bad_wr = wr;
		return crxe_failed(ibqp->context) ? EIO : EINVAL;
	}
	crxe_lock(&qp->lock);
	start = next = crxe_own(&queue->buf->producer_index) & queue->mask;
	consumer = crxe_theirs(&queue->buf->consumer_index) & queue->mask;
	for (; wr; wr = wr->next) {
		if (((next + 1) & queue->mask) == consumer)
			error = ENOMEM;
		else
			error = write_wqe(qp, crxe_entry(queue, next), wr);
		if (error)
			break;
		next = (next + 1) & queue->mask;
	}
	if (next == start) {
		crxe_unlock(&qp->lock);
	} else {
		doorbell = crxe_commit(qp, next);
		if (doorbell) {
			error = doorbell;
			wr = first;
		}
	}
	if (error && bad_wr)
		*bad_wr = wr;
	return error;
}

int crxe_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct ibv_send_wr wr = {
		.wr_id = bind->wr_id,
		.opcode = IBV_WR_BIND_MW,
		.send_flags = bind->send_flags,
	};
	struct ibv_send_wr *bad_wr;
	int error;

	if (bind->bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED)
		return EINVAL;
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.bind_info = bind->bind_info;
	error = crxe_post_send(qp, &wr, &bad_wr);
	if (!error)
		mw->rkey = wr.bind_mw.rkey;
	return error;
}
