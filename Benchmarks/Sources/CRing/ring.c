#include "ring.h"

#include <stdlib.h>

#define DEPTH 256u /* WQEs of each queue; a power of two */
#define MAX_SGE 2

struct wqe {
	uint64_t wr_id;
	uint32_t opcode;
	uint32_t flags;
	uint32_t length;
	uint32_t sge_count;
	struct {
		uint64_t addr;
		uint32_t length;
		uint32_t lkey;
	} sge[MAX_SGE];
	uint64_t reserved;
};

struct queue {
	struct wqe *wqes;
	uint32_t head;
	uint32_t tail;
	volatile uint32_t doorbell;
};

struct ring_cq {
	union {
		struct ibv_cq cq;
		struct ibv_cq_ex cq_ex;
	};
	struct ring_qp *qp;
};

struct ring_qp {
	struct ibv_qp_ex qp_ex;
	struct queue send;
	struct queue receive;
};

static struct ring_qp *ring_qp(struct ibv_qp *qp)
{
	return (struct ring_qp *)qp;
}

static int post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
	struct queue *queue = &ring_qp(ibqp)->send;

	for (; wr; wr = wr->next) {
		struct wqe *wqe = &queue->wqes[queue->head & (DEPTH - 1)];
		uint32_t length = 0;
		int i;

		if (queue->head - queue->tail >= DEPTH) {
			*bad_wr = wr;
			return ENOMEM;
		}
		if (wr->num_sge > MAX_SGE) {
			*bad_wr = wr;
			return EINVAL;
		}
		wqe->wr_id = wr->wr_id;
		wqe->opcode = wr->opcode;
		wqe->flags = wr->send_flags;
		for (i = 0; i < wr->num_sge; i++) {
			wqe->sge[i].addr = wr->sg_list[i].addr;
			wqe->sge[i].length = wr->sg_list[i].length;
			wqe->sge[i].lkey = wr->sg_list[i].lkey;
			length += wr->sg_list[i].length;
		}
		wqe->length = length;
		wqe->sge_count = (uint32_t)wr->num_sge;
		queue->head++;
	}
	queue->doorbell = queue->head;
	return 0;
}

static int post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	struct queue *queue = &ring_qp(ibqp)->receive;

	for (; wr; wr = wr->next) {
		struct wqe *wqe = &queue->wqes[queue->head & (DEPTH - 1)];

		if (queue->head - queue->tail >= DEPTH) {
			*bad_wr = wr;
			return ENOMEM;
		}
		wqe->wr_id = wr->wr_id;
		queue->head++;
	}
	queue->doorbell = queue->head;
	return 0;
}

/* Every posted send is complete at once; completions are returned in order. */
static int poll_cq(struct ibv_cq *ibcq, int count, struct ibv_wc *wc)
{
	struct ring_qp *qp = ((struct ring_cq *)ibcq)->qp;
	struct queue *queue = &qp->send;
	int n;

	for (n = 0; n < count && queue->tail != queue->head; n++, wc++) {
		const struct wqe *wqe = &queue->wqes[queue->tail & (DEPTH - 1)];

		wc->wr_id = wqe->wr_id;
		wc->status = IBV_WC_SUCCESS;
		wc->opcode = IBV_WC_SEND;
		wc->byte_len = wqe->length;
		wc->qp_num = qp->qp_ex.qp_base.qp_num;
		wc->wc_flags = 0;
		queue->tail++;
	}
	return n;
}

static void *zeroed(size_t size)
{
	return calloc(1, size);
}

static struct ibv_pd *alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd = zeroed(sizeof(*pd));

	if (pd)
		pd->context = context;
	return pd;
}

static int dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	return 0;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	struct ibv_mr *mr = zeroed(sizeof(*mr));

	(void)iova;
	(void)access;
	if (!mr)
		return NULL;
	mr->context = pd->context;
	mr->pd = pd;
	mr->addr = addr;
	mr->length = length;
	mr->lkey = 1;
	mr->rkey = 1;
	return mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	free(mr);
	return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *context, int cqe, void *cq_context,
				struct ibv_comp_channel *channel, int comp_vector)
{
	struct ring_cq *cq;

	(void)comp_vector;
	if (cqe > (int)DEPTH) {
		errno = EINVAL;
		return NULL;
	}
	cq = zeroed(sizeof(*cq));
	if (!cq)
		return NULL;
	rdma_init_cq(&cq->cq, context, channel, cq_context, (int)DEPTH);
	return &cq->cq;
}

static int destroy_cq(struct ibv_cq *cq)
{
	rdma_fini_cq(cq);
	free(cq);
	return 0;
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	struct ring_qp *qp;

	if (attr->cap.max_send_wr > DEPTH || attr->cap.max_recv_wr > DEPTH ||
	    attr->cap.max_send_sge > MAX_SGE || attr->cap.max_recv_sge > MAX_SGE) {
		errno = EINVAL;
		return NULL;
	}
	qp = zeroed(sizeof(*qp));
	if (!qp)
		return NULL;
	qp->send.wqes = aligned_alloc(64, DEPTH * sizeof(struct wqe));
	qp->receive.wqes = aligned_alloc(64, DEPTH * sizeof(struct wqe));
	if (!qp->send.wqes || !qp->receive.wqes) {
		free(qp->send.wqes);
		free(qp->receive.wqes);
		free(qp);
		return NULL;
	}
	rdma_init_qp(&qp->qp_ex, context, attr);
	qp->qp_ex.qp_base.qp_num = 1;
	((struct ring_cq *)attr->send_cq)->qp = qp;
	attr->cap.max_send_wr = DEPTH;
	attr->cap.max_recv_wr = DEPTH;
	return &qp->qp_ex.qp_base;
}

static int destroy_qp(struct ibv_qp *ibqp)
{
	struct ring_qp *qp = ring_qp(ibqp);

	free(qp->send.wqes);
	free(qp->receive.wqes);
	rdma_fini_qp(ibqp);
	free(qp);
	return 0;
}

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (mask & IBV_QP_STATE)
		qp->state = attr->qp_state;
	return 0;
}

static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	(void)context;
	(void)input;
	memset(attr, 0, size);
	attr->orig_attr.phys_port_cnt = 1;
	attr->orig_attr.max_qp_wr = (int)DEPTH;
	attr->orig_attr.max_sge = MAX_SGE;
	attr->orig_attr.max_cqe = (int)DEPTH;
	return 0;
}

static int close_context(struct ibv_context *context)
{
	struct verbs_context *verbs = verbs_get_ctx(context);

	rdma_fini_context(context);
	free(verbs);
	return 0;
}

static const struct rdma_context_ops control = {
	.size = sizeof(control),
	.close_context = close_context,
	.query_device_ex = query_device_ex,
	.alloc_pd = alloc_pd,
	.dealloc_pd = dealloc_pd,
	.reg_mr = reg_mr,
	.dereg_mr = dereg_mr,
	.create_cq = create_cq,
	.destroy_cq = destroy_cq,
	.create_qp_ex = create_qp_ex,
	.modify_qp = modify_qp,
	.destroy_qp = destroy_qp,
};

static int open_device(const struct rdma_device *device, struct rdma_context *opened, struct rdma_reason *why)
{
	struct verbs_context *verbs = zeroed(sizeof(*verbs));

	if (!verbs) {
		rdma_set_reason(why, "no memory for a context");
		return ENOMEM;
	}
	opened->context = rdma_init_context(verbs, device->device, -1, -1, 1);
	opened->context->ops.post_send = post_send;
	opened->context->ops.post_recv = post_recv;
	opened->context->ops.poll_cq = poll_cq;
	opened->ops = &control;
	return 0;
}

static int list_devices(struct rdma_software_device *devices, size_t stride, uint32_t capacity, uint32_t *count)
{
	(void)stride;
	*count = 1;
	if (!capacity)
		return 0;
	memset(devices, 0, sizeof(*devices));
	strcpy(devices->name, "ring0");
	devices->node_type = IBV_NODE_CA;
	devices->transport_type = IBV_TRANSPORT_IB;
	return 0;
}

static const struct rdma_provider provider = {
	.size = sizeof(provider),
	.abi_major = RDMA_PROVIDER_ABI_MAJOR,
	.abi_minor = RDMA_PROVIDER_ABI_MINOR,
	.name = "ring",
	.version = "1",
	.vendor = "swift-rdma benchmarks",
	.kernel_abi_max = UINT32_MAX,
	.list_devices = list_devices,
	.open_device = open_device,
};

const struct rdma_provider *rdma_provider_entry_ring(const struct rdma_core *core, struct rdma_reason *why)
{
	(void)core;
	(void)why;
	return &provider;
}
