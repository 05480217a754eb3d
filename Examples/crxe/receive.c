/* Receive queues, of a queue pair or shared. The kernel reads the producer index when a message arrives: there is no
 * doorbell. */
#include "crxe.h"

/* Checks that a WQE has room for max_sge entries. Without a queue, any limit is accepted and nothing can be posted. */
int crxe_attach_receives(struct crxe_receives *receives, uint32_t max_sge)
{
	const size_t room = receives->queue.buf ? crxe_entry_size(&receives->queue) - sizeof(struct rxe_recv_wqe) : 0;

	if (receives->queue.buf && max_sge > room / sizeof(struct rxe_sge))
		return crxe_refuse(EPROTO, "the kernel's receive queue has no room for max_sge entries");
	receives->max_sge = max_sge;
	return 0;
}

static int write_wqe(struct rxe_recv_wqe *wqe, const struct ibv_recv_wr *wr, uint32_t max_sge)
{
	if (wr->num_sge < 0 || (uint32_t)wr->num_sge > max_sge)
		return EINVAL;
	memset(wqe, 0, sizeof(*wqe));
	wqe->wr_id = wr->wr_id;
	return crxe_copy_sges(&wqe->dma, wr->sg_list, (uint32_t)wr->num_sge);
}

static int post(struct crxe_receives *receives, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	struct crxe_queue *queue = &receives->queue;
	uint32_t producer, consumer;
	int error = 0;

	crxe_lock(&receives->lock);
	if (!queue->buf)
		error = wr ? EINVAL : 0;
	if (!error && wr) {
		producer = crxe_own(&queue->buf->producer_index) & queue->mask;
		consumer = crxe_theirs(&queue->buf->consumer_index) & queue->mask;
		for (; wr; wr = wr->next) {
			if (((producer + 1) & queue->mask) == consumer)
				error = ENOMEM;
			else
				error = write_wqe(crxe_entry(queue, producer), wr, receives->max_sge);
			if (error)
				break;
			producer = (producer + 1) & queue->mask;
		}
		crxe_publish(&queue->buf->producer_index, producer);
	}
	crxe_unlock(&receives->lock);
	if (error && bad_wr)
		*bad_wr = wr;
	return error;
}

static int refuse(int error, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	if (bad_wr)
		*bad_wr = wr;
	return error;
}

int crxe_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	if (crxe_failed(qp->context))
		return refuse(EIO, wr, bad_wr);
	if (qp->state == IBV_QPS_RESET)
		return refuse(EINVAL, wr, bad_wr);
	return post(&crxe_qp(qp)->receives, wr, bad_wr);
}

int crxe_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	if (crxe_failed(srq->context))
		return refuse(EIO, wr, bad_wr);
	return post(&crxe_srq(srq)->receives, wr, bad_wr);
}

/* --- shared receive queues --- */

static int check(struct ibv_context *context, const struct ibv_srq_init_attr_ex *attr)
{
	if (attr->comp_mask & ~(uint32_t)(IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD) ||
	    (attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE && attr->srq_type != IBV_SRQT_BASIC))
		return crxe_refuse(EOPNOTSUPP, "crxe supports shared receive queues of type IBV_SRQT_BASIC only");
	if (!(attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) || !attr->pd || attr->pd->context != context)
		return crxe_refuse(EINVAL, "a shared receive queue needs a protection domain of the same open device");
	return 0;
}

struct ibv_srq *crxe_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr)
{
	struct rxe_create_srq_resp response = { 0 };
	struct rdma_udata udata = rdma_udata_of(NULL, 0, &response, sizeof(response));
	struct rdma_kernel *kernel = crxe_node(context);
	struct crxe_srq *srq;
	int error = check(context, attr);

	if (error)
		return crxe_fail(error, NULL);
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return NULL;
	crxe_lock_init(&srq->receives.lock, crxe_pd(attr->pd)->single_threaded);
	error = crxe_kernel->create_srq_ex(kernel, &srq->verbs, context, attr, NULL, &udata);
	if (error)
		goto free_srq;
	error = crxe_map(kernel, &response.mi, sizeof(struct rxe_recv_wqe), &srq->receives.queue);
	if (!error)
		error = crxe_attach_receives(&srq->receives, attr->attr.max_sge);
	if (error)
		goto destroy;
	crxe_use(attr->pd);
	return &srq->verbs;

destroy:
	crxe_kernel->destroy_srq(kernel, &srq->verbs);
	crxe_unmap(&srq->receives.queue);
free_srq:
	crxe_lock_fini(&srq->receives.lock);
	free(srq);
	return crxe_fail(error, NULL);
}

int crxe_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask)
{
	/* The driver asks for its request also where the size stays. The kernel writes `moved` when it has made a new queue. */
	struct mminfo moved = { 0 };
	struct rxe_modify_srq_cmd command = { .mmap_info_addr = (uintptr_t)&moved };
	struct rdma_udata udata = rdma_udata_of(&command, sizeof(command), NULL, 0);
	struct crxe_receives *receives = &crxe_srq(srq)->receives;
	struct rdma_kernel *kernel = crxe_node(srq->context);
	int error;

	crxe_lock(&receives->lock);
	error = crxe_kernel->modify_srq(kernel, srq, attr, mask, &udata);
	if (!error && mask & IBV_SRQ_MAX_WR) {
		crxe_unmap(&receives->queue);
		error = crxe_map(kernel, &moved, sizeof(struct rxe_recv_wqe), &receives->queue);
		if (!error)
			error = crxe_attach_receives(receives, receives->max_sge);
	}
	crxe_unlock(&receives->lock);
	return error;
}

int crxe_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr)
{
	return crxe_kernel->query_srq(crxe_node(srq->context), srq, attr);
}

int crxe_destroy_srq(struct ibv_srq *ibsrq)
{
	struct crxe_srq *srq = crxe_srq(ibsrq);
	int error = crxe_kernel->destroy_srq(crxe_node(ibsrq->context), ibsrq);

	if (error)
		return error;
	crxe_unuse(ibsrq->pd);
	crxe_unmap(&srq->receives.queue);
	crxe_lock_fini(&srq->receives.lock);
	free(srq);
	return 0;
}
