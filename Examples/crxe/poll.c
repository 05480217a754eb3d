/* The data path of completion queues: poll_cq, and the functions of struct ibv_cq_ex. */
#include "crxe.h"

/* A number of this thread: the address of a variable of its own. */
static uintptr_t self(void)
{
	static _Thread_local char mark;

	return (uintptr_t)&mark;
}

bool crxe_in_batch(struct crxe_cq *cq)
{
	return __atomic_load_n(&cq->batch, __ATOMIC_RELAXED) == self();
}

/* rdma_rxe reports an invalidated rkey with the kernel's IB_WC_WITH_INVALIDATE (bit 2), which is IBV_WC_IP_CSUM_OK in
 * verbs.h; rxe reports no IP checksums. */
static unsigned int wc_flags(const struct ibv_wc *cqe)
{
	const unsigned int invalidated = 1u << 2;

	return (cqe->wc_flags & ~invalidated) | (cqe->wc_flags & invalidated ? IBV_WC_WITH_INV : 0u);
}

int crxe_poll_cq(struct ibv_cq *ibcq, int count, struct ibv_wc *wc)
{
	struct crxe_cq *cq = crxe_cq(ibcq);
	uint32_t consumer, producer;
	int polled = 0;

	if (count < 0)
		return -EINVAL;
	if (crxe_in_batch(cq))
		return -EBUSY;
	crxe_lock(&cq->lock);
	if (cq->queue.buf) {
		consumer = crxe_own(&cq->queue.buf->consumer_index) & cq->queue.mask;
		producer = crxe_theirs(&cq->queue.buf->producer_index) & cq->queue.mask;
		for (; polled < count && consumer != producer; polled++, wc++) {
			memcpy(wc, crxe_entry(&cq->queue, consumer), sizeof(*wc));
			wc->wc_flags = wc_flags(wc);
			consumer = (consumer + 1) & cq->queue.mask;
		}
		crxe_publish(&cq->queue.buf->consumer_index, consumer);
	}
	crxe_unlock(&cq->lock);
	return polled == 0 && count > 0 && crxe_failed(ibcq->context) ? -EIO : polled;
}

/* --- extended polling: the lock is held from start_poll to end_poll --- */

/* Makes the completion at the consumer index the current one. Returns 0, ENOENT, or EIO. */
static int show(struct crxe_cq *cq)
{
	uint32_t consumer;

	cq->current = NULL;
	if (cq->queue.buf) {
		consumer = crxe_own(&cq->queue.buf->consumer_index) & cq->queue.mask;
		if (consumer != (crxe_theirs(&cq->queue.buf->producer_index) & cq->queue.mask)) {
			cq->current = crxe_entry(&cq->queue, consumer);
			cq->verbs.status = cq->current->status;
			cq->verbs.wr_id = cq->current->wr_id;
			return 0;
		}
	}
	return crxe_failed(cq->verbs.context) ? EIO : ENOENT;
}

/* Frees the slot of the current completion. */
static void release(struct crxe_cq *cq)
{
	uint32_t *index = &cq->queue.buf->consumer_index;

	if (cq->current)
		crxe_publish(index, (crxe_own(index) + 1) & cq->queue.mask);
	cq->current = NULL;
}

static int start_poll(struct ibv_cq_ex *ibcq, struct ibv_poll_cq_attr *attr)
{
	struct crxe_cq *cq = crxe_cq(ibv_cq_ex_to_cq(ibcq));
	int error;

	if (attr->comp_mask)
		return EINVAL;
	if (crxe_in_batch(cq))
		return EBUSY;
	crxe_lock(&cq->lock);
	error = show(cq);
	if (error)
		crxe_unlock(&cq->lock);
	else
		__atomic_store_n(&cq->batch, self(), __ATOMIC_RELAXED);
	return error;
}

static int next_poll(struct ibv_cq_ex *ibcq)
{
	struct crxe_cq *cq = crxe_cq(ibv_cq_ex_to_cq(ibcq));

	if (!crxe_in_batch(cq))
		return EINVAL;
	release(cq);
	return show(cq);
}

static void end_poll(struct ibv_cq_ex *ibcq)
{
	struct crxe_cq *cq = crxe_cq(ibv_cq_ex_to_cq(ibcq));

	if (!crxe_in_batch(cq))
		return;
	release(cq);
	__atomic_store_n(&cq->batch, 0, __ATOMIC_RELAXED);
	crxe_unlock(&cq->lock);
}

static const struct ibv_wc *current(struct ibv_cq_ex *cq)
{
	return crxe_cq(ibv_cq_ex_to_cq(cq))->current;
}

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *cq)
{
	return current(cq)->opcode;
}

static uint32_t read_vendor_err(struct ibv_cq_ex *cq)
{
	return current(cq)->vendor_err;
}

static uint32_t read_byte_len(struct ibv_cq_ex *cq)
{
	return current(cq)->byte_len;
}

static __be32 read_imm_data(struct ibv_cq_ex *cq)
{
	return current(cq)->imm_data;
}

static uint32_t read_qp_num(struct ibv_cq_ex *cq)
{
	return current(cq)->qp_num;
}

static uint32_t read_src_qp(struct ibv_cq_ex *cq)
{
	return current(cq)->src_qp;
}

static unsigned int read_wc_flags(struct ibv_cq_ex *cq)
{
	return wc_flags(current(cq));
}

static uint32_t read_slid(struct ibv_cq_ex *cq)
{
	return current(cq)->slid;
}

static uint8_t read_sl(struct ibv_cq_ex *cq)
{
	return current(cq)->sl;
}

static uint8_t read_dlid_path_bits(struct ibv_cq_ex *cq)
{
	return current(cq)->dlid_path_bits;
}

void crxe_fill_polling(struct ibv_cq_ex *cq)
{
	cq->start_poll = start_poll;
	cq->next_poll = next_poll;
	cq->end_poll = end_poll;
	cq->read_opcode = read_opcode;
	cq->read_vendor_err = read_vendor_err;
	cq->read_byte_len = read_byte_len;
	cq->read_imm_data = read_imm_data;
	cq->read_qp_num = read_qp_num;
	cq->read_src_qp = read_src_qp;
	cq->read_wc_flags = read_wc_flags;
	cq->read_slid = read_slid;
	cq->read_sl = read_sl;
	cq->read_dlid_path_bits = read_dlid_path_bits;
}
