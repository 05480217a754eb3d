/* cq.c - completion queues, polled in either way */
#include "ctest.h"

static int set_readers(struct ibv_cq_ex *cq, uint64_t wc_flags);

/* Both kinds are made here: an ordinary completion queue only lacks the readers. */
static struct ctest_cq *make_cq(struct ibv_context *context, const struct ibv_cq_init_attr_ex *attr)
{
	struct ctest_channel *channel = attr->channel ? ctest_channel(attr->channel) : NULL;
	struct ctest_cq *cq;

	if (ctest_is_gone(context))
		return ctest_fail(EIO);
	if (attr->cqe < 1 || attr->cqe > CTEST_MAX_CQE || attr->comp_vector >= (uint32_t)context->num_comp_vectors)
		return ctest_fail(EINVAL);
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return ctest_fail(ENOMEM);
	cq->ring = calloc(attr->cqe, sizeof(*cq->ring));
	if (!cq->ring || ctest_queue_reserve(&ctest_context(context)->events, 1))
		goto no_memory;
	if (channel && ctest_queue_reserve(&channel->queue, 1)) {
		ctest_queue_release(&ctest_context(context)->events, 1);
		goto no_memory;
	}
	cq->capacity = attr->cqe;
	pthread_mutex_init(&cq->poll_lock, NULL);
	rdma_init_cq(ibv_cq_ex_to_cq(&cq->verbs), context, attr->channel, attr->cq_context, (int)attr->cqe);
	return cq;

no_memory:
	free(cq->ring);
	free(cq);
	return ctest_fail(ENOMEM);
}

struct ibv_cq *ctest_create_cq(struct ibv_context *context, int cqe, void *cq_context,
			       struct ibv_comp_channel *channel, int comp_vector)
{
	const struct ibv_cq_init_attr_ex attr = {
		.cqe = cqe < 0 ? 0 : (uint32_t)cqe,
		.cq_context = cq_context,
		.channel = channel,
		.comp_vector = (uint32_t)comp_vector,
	};
	struct ctest_cq *cq = make_cq(context, &attr);

	return cq ? ibv_cq_ex_to_cq(&cq->verbs) : NULL;
}

struct ibv_cq_ex *ctest_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	const uint32_t known = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
	struct ibv_cq_ex readers = { 0 };
	struct ctest_cq *cq;

	if (attr->comp_mask & ~(uint32_t)IBV_CQ_INIT_ATTR_MASK_FLAGS)
		return ctest_fail(EOPNOTSUPP);
	if ((attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS) && (attr->flags & ~known))
		return ctest_fail(EOPNOTSUPP);
	if (set_readers(&readers, attr->wc_flags))
		return ctest_fail(EOPNOTSUPP);
	cq = make_cq(context, attr);
	if (!cq)
		return NULL;
	set_readers(&cq->verbs, attr->wc_flags);
	return &cq->verbs;
}

int ctest_destroy_cq(struct ibv_cq *verbs)
{
	struct ctest_cq *cq = ctest_cq(verbs);
	struct ctest_context *context = ctest_context(verbs->context);
	unsigned int users;

	ctest_lock();
	users = cq->users;
	ctest_unlock();
	if (users)
		return EBUSY;
	/* Nothing uses it any more, so nothing raises another event. */
	if (verbs->channel) {
		ctest_queue_drop(&ctest_channel(verbs->channel)->queue, cq);
		ctest_queue_release(&ctest_channel(verbs->channel)->queue, 1);
	}
	ctest_queue_drop(&context->events, cq);
	ctest_queue_release(&context->events, 1);
	rdma_wait_cq_events(verbs, cq->comp_read, cq->async_read);
	rdma_fini_cq(verbs);
	pthread_mutex_destroy(&cq->poll_lock);
	free(cq->ring);
	free(cq);
	return 0;
}

void ctest_complete(struct ibv_cq *verbs, const struct ibv_wc *wc, bool solicited)
{
	struct ctest_cq *cq = ctest_cq(verbs);

	if (cq->count == cq->capacity) {
		/* The completion is lost, and with it the queue's worth: IBTA volume 1, 11.2.8.1. */
		if (!cq->overrun)
			ctest_raise(verbs->context, IBV_EVENT_CQ_ERR, cq);
		cq->overrun = true;
		return;
	}
	cq->ring[(cq->head + cq->count++) % cq->capacity] = *wc;
	if (cq->arm == CTEST_ARM_ANY ||
	    (cq->arm == CTEST_ARM_SOLICITED && (solicited || wc->status != IBV_WC_SUCCESS))) {
		cq->arm = CTEST_ARM_NONE;
		if (verbs->channel)
			ctest_queue_put(&ctest_channel(verbs->channel)->queue, cq, 0);
	}
}

static bool take(struct ctest_cq *cq, struct ibv_wc *wc)
{
	if (!cq->count)
		return false;
	*wc = cq->ring[cq->head];
	cq->head = (cq->head + 1) % cq->capacity;
	cq->count--;
	return true;
}

/* What an empty queue answers: a device that has gone says so once its flushed requests are out. */
static bool broken(const struct ctest_cq *cq)
{
	return ctest_context(cq->verbs.context)->gone || cq->overrun;
}

int ctest_poll_cq(struct ibv_cq *verbs, int count, struct ibv_wc *wc)
{
	struct ctest_cq *cq = ctest_cq(verbs);
	int taken = 0;

	ctest_lock();
	while (taken < count && take(cq, wc + taken))
		taken++;
	if (!taken && count > 0 && broken(cq))
		taken = -EIO;
	ctest_unlock();
	return taken;
}

int ctest_req_notify_cq(struct ibv_cq *verbs, int solicited_only)
{
	struct ctest_cq *cq = ctest_cq(verbs);
	int error = 0;

	ctest_lock();
	if (broken(cq))
		error = EIO;
	else if (!solicited_only)
		cq->arm = CTEST_ARM_ANY;
	else if (cq->arm == CTEST_ARM_NONE)
		cq->arm = CTEST_ARM_SOLICITED;
	ctest_unlock();
	return error;
}

/* --- struct ibv_cq_ex --- */

static struct ctest_cq *extended(struct ibv_cq_ex *cq)
{
	return (struct ctest_cq *)cq;
}

static int next_poll(struct ibv_cq_ex *verbs)
{
	struct ctest_cq *cq = extended(verbs);
	int error = 0;

	ctest_lock();
	if (!take(cq, &cq->current))
		error = broken(cq) ? EIO : ENOENT;
	ctest_unlock();
	if (!error) {
		verbs->wr_id = cq->current.wr_id;
		verbs->status = cq->current.status;
	}
	return error;
}

/* After an error there is no end_poll, so the lock goes back here. */
static int start_poll(struct ibv_cq_ex *verbs, struct ibv_poll_cq_attr *attr)
{
	struct ctest_cq *cq = extended(verbs);
	int error;

	if (attr->comp_mask)
		return EOPNOTSUPP;
	pthread_mutex_lock(&cq->poll_lock);
	error = next_poll(verbs);
	if (error)
		pthread_mutex_unlock(&cq->poll_lock);
	return error;
}

static void end_poll(struct ibv_cq_ex *verbs)
{
	pthread_mutex_unlock(&extended(verbs)->poll_lock);
}

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.opcode;
}

static uint32_t read_vendor_err(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.vendor_err;
}

static unsigned int read_wc_flags(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.wc_flags;
}

static uint32_t read_byte_len(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.byte_len;
}

static __be32 read_imm_data(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.imm_data;
}

static uint32_t read_qp_num(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.qp_num;
}

static uint32_t read_src_qp(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.src_qp;
}

static uint32_t read_slid(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.slid;
}

static uint8_t read_sl(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.sl;
}

static uint8_t read_dlid_path_bits(struct ibv_cq_ex *cq)
{
	return extended(cq)->current.dlid_path_bits;
}

/* EOPNOTSUPP for a flag that the device does not know; then `cq` is of no use. */
static int set_readers(struct ibv_cq_ex *cq, uint64_t wc_flags)
{
	if (wc_flags & ~(uint64_t)IBV_WC_STANDARD_FLAGS)
		return EOPNOTSUPP;
	cq->start_poll = start_poll;
	cq->next_poll = next_poll;
	cq->end_poll = end_poll;
	cq->read_opcode = read_opcode;
	cq->read_vendor_err = read_vendor_err;
	cq->read_wc_flags = read_wc_flags;
	if (wc_flags & IBV_WC_EX_WITH_BYTE_LEN)
		cq->read_byte_len = read_byte_len;
	if (wc_flags & IBV_WC_EX_WITH_IMM)
		cq->read_imm_data = read_imm_data;
	if (wc_flags & IBV_WC_EX_WITH_QP_NUM)
		cq->read_qp_num = read_qp_num;
	if (wc_flags & IBV_WC_EX_WITH_SRC_QP)
		cq->read_src_qp = read_src_qp;
	if (wc_flags & IBV_WC_EX_WITH_SLID)
		cq->read_slid = read_slid;
	if (wc_flags & IBV_WC_EX_WITH_SL)
		cq->read_sl = read_sl;
	if (wc_flags & IBV_WC_EX_WITH_DLID_PATH_BITS)
		cq->read_dlid_path_bits = read_dlid_path_bits;
	return 0;
}
