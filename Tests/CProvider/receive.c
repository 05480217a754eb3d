/* receive.c - receive queues of queue pairs, and shared receive queues */
#include "ctest.h"

enum { CTEST_SRQ_EVENTS = 2 }; /* types of asynchronous event that an SRQ can have unread */

int ctest_ring_init(struct ctest_recv_ring *ring, uint32_t max_wr, uint32_t max_sge)
{
	if (max_wr > CTEST_MAX_WR || max_sge > CTEST_MAX_SGE)
		return EINVAL;
	ring->capacity = max_wr;
	ring->max_sge = max_sge;
	/* At least one, because calloc may return NULL for zero. */
	ring->slots = calloc(max_wr + 1, sizeof(*ring->slots));
	return ring->slots ? 0 : ENOMEM;
}

int ctest_ring_post(struct ctest_recv_ring *ring, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct ctest_recv *slot;
	int error = 0;

	for (; wr; wr = wr->next) {
		if (wr->num_sge < 0 || (uint32_t)wr->num_sge > ring->max_sge)
			error = EINVAL;
		else if (ring->count == ring->capacity)
			error = ENOMEM;
		if (error)
			break;
		slot = &ring->slots[(ring->head + ring->count++) % ring->capacity];
		slot->wr_id = wr->wr_id;
		slot->num_sge = wr->num_sge;
		for (int i = 0; i < wr->num_sge; i++)
			slot->sge[i] = wr->sg_list[i];
	}
	if (error)
		*bad = wr;
	return error;
}

struct ibv_srq *ctest_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr)
{
	struct ctest_srq *srq;
	int error;

	if (ctest_has_failed(context))
		return ctest_fail(EIO);
	if (attr->comp_mask & ~(uint32_t)(IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD))
		return ctest_fail(EOPNOTSUPP);
	if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) && attr->srq_type != IBV_SRQT_BASIC)
		return ctest_fail(EOPNOTSUPP);
	if (!(attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) || !attr->attr.max_wr)
		return ctest_fail(EINVAL);
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return ctest_fail(ENOMEM);
	error = ctest_ring_init(&srq->ring, attr->attr.max_wr, attr->attr.max_sge);
	if (!error)
		error = ctest_queue_reserve(&ctest_context(context)->events, CTEST_SRQ_EVENTS);
	if (error) {
		free(srq->ring.slots);
		free(srq);
		return ctest_fail(error);
	}
	rdma_init_srq(&srq->verbs, context, attr);
	ctest_count(&ctest_pd(attr->pd)->users, 1);
	return &srq->verbs;
}

int ctest_modify_srq(struct ibv_srq *verbs, struct ibv_srq_attr *attr, int mask)
{
	struct ctest_srq *srq = ctest_srq(verbs);
	int error = 0;

	if (mask & ~IBV_SRQ_LIMIT)
		return EOPNOTSUPP;
	ctest_lock();
	if (ctest_context(verbs->context)->failed)
		error = EIO;
	else if ((mask & IBV_SRQ_LIMIT) && attr->srq_limit > srq->ring.capacity)
		error = EINVAL;
	else if (mask & IBV_SRQ_LIMIT)
		srq->limit = attr->srq_limit;
	ctest_unlock();
	return error;
}

int ctest_query_srq(struct ibv_srq *verbs, struct ibv_srq_attr *attr)
{
	struct ctest_srq *srq = ctest_srq(verbs);

	if (ctest_has_failed(verbs->context))
		return EIO;
	ctest_lock();
	attr->max_wr = srq->ring.capacity;
	attr->max_sge = srq->ring.max_sge;
	attr->srq_limit = srq->limit;
	ctest_unlock();
	return 0;
}

int ctest_destroy_srq(struct ibv_srq *verbs)
{
	struct ctest_srq *srq = ctest_srq(verbs);
	struct ctest_queue *events = &ctest_context(verbs->context)->events;
	unsigned int users;

	ctest_lock();
	users = srq->users;
	ctest_unlock();
	if (users)
		return EBUSY;
	ctest_queue_drop(events, srq);
	ctest_queue_release(events, CTEST_SRQ_EVENTS);
	rdma_wait_srq_events(verbs, srq->async_read);
	ctest_count(&ctest_pd(verbs->pd)->users, -1);
	rdma_fini_srq(verbs);
	free(srq->ring.slots);
	free(srq);
	return 0;
}

int ctest_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	int error;

	ctest_lock();
	if (ctest_context(srq->context)->failed) {
		*bad = wr;
		error = EIO;
	} else {
		error = ctest_ring_post(&ctest_srq(srq)->ring, wr, bad);
		ctest_progress_all();
	}
	ctest_unlock();
	return error;
}

int ctest_post_recv(struct ibv_qp *verbs, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct ctest_qp *qp = ctest_qp(verbs);
	int error = 0;

	ctest_lock();
	if (ctest_context(verbs->context)->failed)
		error = EIO;
	else if (verbs->state == IBV_QPS_RESET || verbs->srq)
		error = EINVAL;
	if (error) {
		*bad = wr;
	} else {
		error = ctest_ring_post(&qp->recv, wr, bad);
		if (verbs->state == IBV_QPS_ERR)
			ctest_flush(qp);
		else
			ctest_progress_all();
	}
	ctest_unlock();
	return error;
}

bool ctest_consume_recv(struct ctest_qp *qp, struct ctest_recv *recv)
{
	struct ctest_srq *srq = qp->verbs.qp_base.srq ? ctest_srq(qp->verbs.qp_base.srq) : NULL;
	struct ctest_recv_ring *ring = srq ? &srq->ring : &qp->recv;

	if (!ring->count)
		return false;
	*recv = ring->slots[ring->head];
	ring->head = (ring->head + 1) % ring->capacity;
	ring->count--;
	/* The limit event is raised once, until the application sets srq_limit again (ibv_modify_srq(3)). */
	if (srq && srq->limit && ring->count < srq->limit) {
		srq->limit = 0;
		ctest_raise(srq->verbs.context, IBV_EVENT_SRQ_LIMIT_REACHED, srq);
	}
	return true;
}
