/* cq.c - completion queues, with ibv_poll_cq and with the extended polling of ibv_cq_ex */
#define _POSIX_C_SOURCE 200809L
#include "ctest.h"

static int set_readers(struct ibv_cq_ex *cq, uint64_t wc_flags);

/* An error-checking mutex: locking it twice, or unlocking it without holding it, returns an error and has no effect. */
static void init_poll_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

/* Creates a completion queue for ibv_create_cq or ibv_create_cq_ex; only the latter sets the read_* functions. */
static struct ctest_cq *make_cq(struct ibv_context *context, const struct ibv_cq_init_attr_ex *attr)
{
	struct ctest_channel *channel = attr->channel ? ctest_channel(attr->channel) : NULL;
	struct ctest_cq *cq;

	if (ctest_has_failed(context))
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
	init_poll_lock(&cq->poll_lock);
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
	/* poll_lock is held between start_poll and end_poll. */
	if (users || pthread_mutex_trylock(&cq->poll_lock))
		return EBUSY;
	pthread_mutex_unlock(&cq->poll_lock);
	/* No object uses the queue any more, so no further event is raised. */
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
		/* The completion is lost, and the queue fails: IBTA volume 1, 11.2.8.1. */
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

static bool consume(struct ctest_cq *cq, struct ibv_wc *wc)
{
	if (!cq->count)
		return false;
	*wc = cq->ring[cq->head];
	cq->head = (cq->head + 1) % cq->capacity;
	cq->count--;
	return true;
}

/* Whether polling an empty queue returns EIO: the device has failed, or the queue is overrun. */
static bool broken(const struct ctest_cq *cq)
{
	return ctest_context(cq->verbs.context)->failed || cq->overrun;
}

int ctest_poll_cq(struct ibv_cq *verbs, int count, struct ibv_wc *wc)
{
	struct ctest_cq *cq = ctest_cq(verbs);
	int polled = 0;

	ctest_lock();
	while (polled < count && consume(cq, wc + polled))
		polled++;
	if (!polled && count > 0 && broken(cq))
		polled = -EIO;
	ctest_unlock();
	return polled;
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
	if (!consume(cq, &cq->current))
		error = broken(cq) ? EIO : ENOENT;
	ctest_unlock();
	if (!error) {
		verbs->wr_id = cq->current.wr_id;
		verbs->status = cq->current.status;
	}
	return error;
}

/*
 * If start_poll fails, the caller does not call end_poll, so the lock is released here. Between start_poll and end_poll
 * of the same thread, the error-checking lock fails and start_poll returns EBUSY.
 */
static int start_poll(struct ibv_cq_ex *verbs, struct ibv_poll_cq_attr *attr)
{
	struct ctest_cq *cq = extended(verbs);
	int error;

	if (attr->comp_mask)
		return EOPNOTSUPP;
	if (pthread_mutex_lock(&cq->poll_lock))
		return EBUSY;
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

/* Sets the read_* functions for `wc_flags`. Returns EOPNOTSUPP for an unsupported flag; then `cq` is not usable. */
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
