/* Completion queues: create, resize, destroy. */
#include "crxe.h"

_Static_assert(sizeof(struct ib_uverbs_wc) == sizeof(struct ibv_wc) &&
		       offsetof(struct ib_uverbs_wc, wc_flags) == offsetof(struct ibv_wc, wc_flags) &&
		       offsetof(struct ib_uverbs_wc, dlid_path_bits) == offsetof(struct ibv_wc, dlid_path_bits),
	       "a CQE of rdma_rxe has the layout of struct ibv_wc");

/* The checks that create_cq_ex makes: 0, EINVAL or EOPNOTSUPP. Sets *single_threaded. */
static int check(struct ibv_context *context, const struct ibv_cq_init_attr_ex *attr, bool *single_threaded)
{
	const uint32_t known = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
	const uint32_t flags = attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS ? attr->flags : 0;

	if (attr->comp_mask & ~known || flags & ~(uint32_t)IBV_CREATE_CQ_ATTR_SINGLE_THREADED ||
	    attr->wc_flags & ~(uint64_t)IBV_WC_STANDARD_FLAGS)
		return crxe_refuse(EOPNOTSUPP, "crxe does not support all of these flags or wc_flags");
	if (attr->cqe == 0 || attr->cqe > INT32_MAX)
		return crxe_refuse(EINVAL, "cqe: a completion queue has 1 to 2147483647 entries");
	if (attr->comp_vector >= (uint32_t)context->num_comp_vectors)
		return crxe_refuse(EINVAL, "comp_vector: the device has fewer completion vectors (num_comp_vectors)");
	if (attr->channel && attr->channel->context != context)
		return crxe_refuse(EINVAL, "the completion channel belongs to another open device");
	*single_threaded = flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) {
		if (!attr->parent_domain || attr->parent_domain->context != context)
			return crxe_refuse(EINVAL, "parent_domain: there is none, or it belongs to another open device");
		*single_threaded |= crxe_pd(attr->parent_domain)->single_threaded;
	}
	return 0;
}

static struct crxe_cq *create(struct ibv_context *context, const struct ibv_cq_init_attr_ex *attr)
{
	struct rxe_create_cq_resp response = { 0 };
	struct rdma_udata udata = rdma_udata_of(NULL, 0, &response, sizeof(response));
	struct rdma_kernel *kernel = crxe_node(context);
	bool single_threaded = false;
	struct crxe_cq *cq;
	struct ibv_cq *verbs;
	int error = check(context, attr, &single_threaded);

	if (error)
		return crxe_fail(error, NULL);
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return NULL;
	verbs = ibv_cq_ex_to_cq(&cq->verbs);
	crxe_lock_init(&cq->lock, single_threaded);
	error = crxe_kernel->create_cq(kernel, verbs, context, attr, &udata);
	if (error)
		goto free_cq;
	error = crxe_map(kernel, &response.mi, sizeof(struct ibv_wc), &cq->queue);
	if (error)
		goto destroy;
	return cq;

destroy:
	crxe_kernel->destroy_cq(kernel, verbs);
free_cq:
	crxe_lock_fini(&cq->lock);
	free(cq);
	return crxe_fail(error, NULL);
}

struct ibv_cq *crxe_create_cq(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			      int comp_vector)
{
	struct ibv_cq_init_attr_ex attr = {
		.cqe = cqe > 0 ? (uint32_t)cqe : 0,
		.cq_context = cq_context,
		.channel = channel,
		.comp_vector = comp_vector < 0 ? UINT32_MAX : (uint32_t)comp_vector,
	};
	struct crxe_cq *cq = create(context, &attr);

	return cq ? ibv_cq_ex_to_cq(&cq->verbs) : NULL;
}

struct ibv_cq_ex *crxe_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	struct crxe_cq *cq = create(context, attr);

	if (!cq)
		return NULL;
	crxe_fill_polling(&cq->verbs);
	return &cq->verbs;
}

int crxe_resize_cq(struct ibv_cq *ibcq, int cqe)
{
	struct rxe_resize_cq_resp response = { 0 };
	struct rdma_udata udata = rdma_udata_of(NULL, 0, &response, sizeof(response));
	struct crxe_cq *cq = crxe_cq(ibcq);
	int error;

	if (crxe_in_batch(cq))
		return crxe_refuse(EBUSY, "a batch is open, whose current completion lies in the queue: call ibv_end_poll first");
	crxe_lock(&cq->lock);
	error = crxe_kernel->resize_cq(crxe_node(ibcq->context), ibcq, cqe, &udata);
	if (!error) {
		/* The kernel has moved the completions to the new queue, and writes further ones there. */
		crxe_unmap(&cq->queue);
		error = crxe_map(crxe_node(ibcq->context), &response.mi, sizeof(struct ibv_wc), &cq->queue);
	}
	crxe_unlock(&cq->lock);
	return error;
}

int crxe_destroy_cq(struct ibv_cq *ibcq)
{
	struct crxe_cq *cq = crxe_cq(ibcq);
	int error;

	if (crxe_in_batch(cq))
		return crxe_refuse(EBUSY, "a batch is open: call ibv_end_poll first");
	error = crxe_kernel->destroy_cq(crxe_node(ibcq->context), ibcq);
	if (error)
		return error;
	crxe_unmap(&cq->queue);
	crxe_lock_fini(&cq->lock);
	free(cq);
	return 0;
}

int crxe_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	if (crxe_failed(cq->context))
		return EIO;
	return crxe_kernel->req_notify_cq(crxe_node(cq->context), cq, solicited_only);
}
