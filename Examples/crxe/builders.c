/* The functions of struct ibv_qp_ex (ibv_wr_post(3)). They write WQEs in place, from the producer index on. wr_complete
 * makes all of them visible and rings the doorbell; after an error it does neither. */
#include "crxe.h"

static struct crxe_qp *of(struct ibv_qp_ex *qp)
{
	return crxe_qp(&qp->qp_base);
}

static void set_error(struct crxe_qp *qp, int error)
{
	if (!qp->error)
		qp->error = error;
}

/* --- wr_start, wr_complete, wr_abort: the lock is held in between --- */

static void start(struct ibv_qp_ex *ibqp)
{
	struct crxe_qp *qp = of(ibqp);

	crxe_lock(&qp->lock);
	qp->wqe = NULL;
	qp->next = crxe_own(&qp->sends.buf->producer_index) & qp->sends.mask;
	qp->error = crxe_failed(ibqp->qp_base.context) ? EIO : crxe_may_send(&ibqp->qp_base) ? 0 : EINVAL;
}

static int complete(struct ibv_qp_ex *ibqp)
{
	struct crxe_qp *qp = of(ibqp);
	const int error = qp->error;

	if (!error && qp->wqe)
		return crxe_commit(qp, qp->next);
	crxe_unlock(&qp->lock);
	return error;
}

static void abort_requests(struct ibv_qp_ex *ibqp)
{
	crxe_unlock(&of(ibqp)->lock);
}

/* --- operations --- */

/* Begins the next WQE. NULL after an error, or when the queue is full. */
static struct rxe_send_wqe *begin(struct ibv_qp_ex *ibqp, enum ibv_wr_opcode opcode)
{
	struct crxe_qp *qp = of(ibqp);
	const uint32_t next = (qp->next + 1) & qp->sends.mask;

	if (qp->error)
		return NULL;
	if (next == (crxe_theirs(&qp->sends.buf->consumer_index) & qp->sends.mask)) {
		qp->error = ENOMEM;
		return NULL;
	}
	qp->wqe = crxe_entry(&qp->sends, qp->next);
	qp->next = next;
	/* The setter of the data sets IBV_SEND_INLINE. */
	crxe_begin_wqe(qp, qp->wqe, ibqp->wr_id, opcode, ibqp->wr_flags & ~(unsigned int)IBV_SEND_INLINE);
	return qp->wqe;
}

static void begin_with(struct ibv_qp_ex *qp, enum ibv_wr_opcode opcode, uint32_t ex)
{
	struct rxe_send_wqe *wqe = begin(qp, opcode);

	if (wqe)
		wqe->wr.ex.invalidate_rkey = ex;
}

static void begin_rdma(struct ibv_qp_ex *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t address, __be32 imm)
{
	struct rxe_send_wqe *wqe = begin(qp, opcode);

	if (!wqe)
		return;
	wqe->wr.ex.imm_data = imm;
	wqe->wr.wr.rdma.remote_addr = address;
	wqe->wr.wr.rdma.rkey = rkey;
	wqe->iova = address;
}

static void begin_atomic(struct ibv_qp_ex *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t address,
			 uint64_t compare_add, uint64_t swap)
{
	struct rxe_send_wqe *wqe;

	if (address & 7) {
		set_error(of(qp), EINVAL);
		return;
	}
	wqe = begin(qp, opcode);
	if (!wqe)
		return;
	wqe->wr.wr.atomic.remote_addr = address;
	wqe->wr.wr.atomic.compare_add = compare_add;
	wqe->wr.wr.atomic.swap = swap;
	wqe->wr.wr.atomic.rkey = rkey;
	wqe->iova = address;
}

static void wr_send(struct ibv_qp_ex *qp)
{
	begin(qp, IBV_WR_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *qp, __be32 imm)
{
	begin_with(qp, IBV_WR_SEND_WITH_IMM, imm);
}

static void wr_send_inv(struct ibv_qp_ex *qp, uint32_t rkey)
{
	begin_with(qp, IBV_WR_SEND_WITH_INV, rkey);
}

static void wr_rdma_write(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address)
{
	begin_rdma(qp, IBV_WR_RDMA_WRITE, rkey, address, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, __be32 imm)
{
	begin_rdma(qp, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address)
{
	begin_rdma(qp, IBV_WR_RDMA_READ, rkey, address, 0);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, uint64_t compare, uint64_t swap)
{
	begin_atomic(qp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address, compare, swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, uint64_t add)
{
	begin_atomic(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address, add, 0);
}

static void wr_local_inv(struct ibv_qp_ex *qp, uint32_t rkey)
{
	begin_with(qp, IBV_WR_LOCAL_INV, rkey);
}

static void wr_bind_mw(struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	struct rxe_send_wqe *wqe;

	if (!mw || !info || !info->mr) {
		set_error(of(qp), EINVAL);
		return;
	}
	wqe = begin(qp, IBV_WR_BIND_MW);
	if (wqe)
		crxe_write_binding(wqe, mw, rkey, info);
}

/* --- setters: they apply to the latest request --- */

/* The WQE of the latest request; NULL after an error, or where none was begun. */
static struct rxe_send_wqe *latest(struct crxe_qp *qp)
{
	if (!qp->wqe)
		set_error(qp, EINVAL);
	return qp->error ? NULL : qp->wqe;
}

static void set_ud_addr(struct ibv_qp_ex *ibqp, struct ibv_ah *ah, uint32_t remote_qpn, uint32_t remote_qkey)
{
	struct crxe_qp *qp = of(ibqp);
	struct rxe_send_wqe *wqe = latest(qp);

	if (wqe && !ah)
		set_error(qp, EINVAL);
	if (!wqe || !ah)
		return;
	wqe->wr.wr.ud.remote_qpn = remote_qpn;
	wqe->wr.wr.ud.remote_qkey = remote_qkey;
	wqe->wr.wr.ud.ah_num = ((struct crxe_ah *)ah)->number;
}

static void set_sge_list(struct ibv_qp_ex *ibqp, size_t count, const struct ibv_sge *list)
{
	struct crxe_qp *qp = of(ibqp);
	struct rxe_send_wqe *wqe = latest(qp);

	if (!wqe)
		return;
	wqe->wr.send_flags &= ~(uint32_t)IBV_SEND_INLINE;
	if (count > qp->max_sge || crxe_copy_sges(&wqe->dma, list, (uint32_t)count))
		set_error(qp, EINVAL);
}

static void set_sge(struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address, uint32_t length)
{
	const struct ibv_sge sge = { .addr = address, .length = length, .lkey = lkey };

	set_sge_list(qp, 1, &sge);
}

static void set_inline_data_list(struct ibv_qp_ex *ibqp, size_t count, const struct ibv_data_buf *list)
{
	struct crxe_qp *qp = of(ibqp);
	struct rxe_send_wqe *wqe = latest(qp);
	size_t length = 0, index;

	if (!wqe)
		return;
	if (!crxe_may_be_inline((enum ibv_wr_opcode)wqe->wr.opcode) || (count && !list)) {
		set_error(qp, EINVAL);
		return;
	}
	for (index = 0; index < count; index++) {
		if (list[index].length > qp->max_inline - length || (list[index].length && !list[index].addr)) {
			set_error(qp, EINVAL);
			return;
		}
		if (list[index].length)
			memcpy(wqe->dma.inline_data + length, list[index].addr, list[index].length);
		length += list[index].length;
	}
	wqe->wr.send_flags |= IBV_SEND_INLINE;
	wqe->dma.length = (uint32_t)length;
	wqe->dma.resid = (uint32_t)length;
	wqe->dma.num_sge = 0;
}

static void set_inline_data(struct ibv_qp_ex *qp, void *address, size_t length)
{
	const struct ibv_data_buf buffer = { .addr = address, .length = length };

	set_inline_data_list(qp, 1, &buffer);
}

void crxe_fill_builders(struct ibv_qp_ex *qp, uint64_t operations)
{
	qp->wr_start = start;
	qp->wr_complete = complete;
	qp->wr_abort = abort_requests;
	qp->wr_set_ud_addr = set_ud_addr;
	qp->wr_set_sge = set_sge;
	qp->wr_set_sge_list = set_sge_list;
	qp->wr_set_inline_data = set_inline_data;
	qp->wr_set_inline_data_list = set_inline_data_list;
	if (operations & IBV_QP_EX_WITH_SEND)
		qp->wr_send = wr_send;
	if (operations & IBV_QP_EX_WITH_SEND_WITH_IMM)
		qp->wr_send_imm = wr_send_imm;
	if (operations & IBV_QP_EX_WITH_SEND_WITH_INV)
		qp->wr_send_inv = wr_send_inv;
	if (operations & IBV_QP_EX_WITH_RDMA_WRITE)
		qp->wr_rdma_write = wr_rdma_write;
	if (operations & IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM)
		qp->wr_rdma_write_imm = wr_rdma_write_imm;
	if (operations & IBV_QP_EX_WITH_RDMA_READ)
		qp->wr_rdma_read = wr_rdma_read;
	if (operations & IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP)
		qp->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	if (operations & IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD)
		qp->wr_atomic_fetch_add = wr_atomic_fetch_add;
	if (operations & IBV_QP_EX_WITH_LOCAL_INV)
		qp->wr_local_inv = wr_local_inv;
	if (operations & IBV_QP_EX_WITH_BIND_MW)
		qp->wr_bind_mw = wr_bind_mw;
}
