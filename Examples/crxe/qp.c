/* Queue pairs: create, modify, destroy. */
#include "crxe.h"

/* Refuses send_ops_flags: EOPNOTSUPP if no type of queue pair has an operation, EINVAL if another type has. */
static int check_operations(enum ibv_qp_type type, uint64_t operations)
{
	if (operations & ~(uint64_t)crxe_opcodes(IBV_QPT_RC))
		return crxe_refuse(EOPNOTSUPP, "send_ops_flags: crxe does not support all of these operations");
	if (operations & ~(uint64_t)crxe_opcodes(type))
		return crxe_refuse(EINVAL, "send_ops_flags: a queue pair of this type does not support all of these operations");
	return 0;
}

static int check(struct ibv_context *context, const struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS | IBV_QP_INIT_ATTR_CREATE_FLAGS;
	int error;

	if (attr->comp_mask & ~known)
		return crxe_refuse(EOPNOTSUPP, "comp_mask: crxe supports no XRC, TSO, RSS and other extensions");
	if (attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS && attr->create_flags)
		return crxe_refuse(EOPNOTSUPP, "create_flags: crxe supports no creation flags of queue pairs");
	if (!crxe_opcodes(attr->qp_type))
		return crxe_refuse(EOPNOTSUPP, "qp_type: crxe supports queue pairs of types RC, UC and UD only");
	if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) {
		error = check_operations(attr->qp_type, attr->send_ops_flags);
		if (error)
			return error;
	}
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->pd || !attr->send_cq || !attr->recv_cq)
		return crxe_refuse(EINVAL, "a queue pair needs a protection domain and two completion queues");
	if (attr->pd->context != context || attr->send_cq->context != context || attr->recv_cq->context != context ||
	    (attr->srq && attr->srq->context != context))
		return crxe_refuse(EINVAL, "the given objects belong to different open devices (ibv_context)");
	return 0;
}

static int map_queues(struct crxe_qp *qp, struct rdma_kernel *kernel, const struct rxe_create_qp_resp *response,
		      const struct ibv_qp_cap *cap)
{
	int error = crxe_map(kernel, &response->sq_mi, sizeof(struct rxe_send_wqe), &qp->sends);
	size_t room;

	if (!error && !qp->verbs.qp_base.srq)
		error = crxe_map(kernel, &response->rq_mi, sizeof(struct rxe_recv_wqe), &qp->receives.queue);
	if (!error)
		error = crxe_attach_receives(&qp->receives, cap->max_recv_sge);
	if (error)
		return error;
	room = crxe_entry_size(&qp->sends) - sizeof(struct rxe_send_wqe);
	if (cap->max_send_sge > room / sizeof(struct rxe_sge) || cap->max_inline_data > room)
		return crxe_refuse(EPROTO, "the kernel's send queue has no room for max_send_sge or max_inline_data");
	qp->max_sge = cap->max_send_sge;
	qp->max_inline = cap->max_inline_data;
	return 0;
}

static void prepare_doorbell(struct crxe_qp *qp)
{
	struct crxe_doorbell *doorbell = &qp->doorbell;

	doorbell->header.command = IB_USER_VERBS_CMD_POST_SEND;
	doorbell->header.in_words = sizeof(*doorbell) / 4;
	doorbell->header.out_words = sizeof(qp->response) / 4;
	doorbell->response = (uintptr_t)&qp->response;
	doorbell->qp_handle = qp->verbs.qp_base.handle;
	doorbell->wqe_size = sizeof(struct ibv_send_wr);
}

static void release(struct crxe_qp *qp)
{
	crxe_unmap(&qp->sends);
	crxe_unmap(&qp->receives.queue);
	crxe_lock_fini(&qp->lock);
	crxe_lock_fini(&qp->receives.lock);
	free(qp);
}

struct ibv_qp *crxe_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	struct rxe_create_qp_resp response = { 0 };
	struct rdma_udata udata = rdma_udata_of(NULL, 0, &response, sizeof(response));
	struct rdma_kernel *kernel = crxe_node(context);
	struct crxe_qp *qp;
	int error = check(context, attr);

	if (error)
		return crxe_fail(error, NULL);
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return NULL;
	crxe_lock_init(&qp->lock, crxe_pd(attr->pd)->single_threaded);
	crxe_lock_init(&qp->receives.lock, crxe_pd(attr->pd)->single_threaded);
	qp->opcodes = crxe_opcodes(attr->qp_type);
	error = crxe_kernel->create_qp_ex(kernel, &qp->verbs, context, attr, &udata);
	if (error)
		goto release_qp;
	error = map_queues(qp, kernel, &response, &attr->cap);
	if (error)
		goto destroy;
	prepare_doorbell(qp);
	if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
		crxe_fill_builders(&qp->verbs, attr->send_ops_flags);
	crxe_use(attr->pd);
	return &qp->verbs.qp_base;

destroy:
	crxe_kernel->destroy_qp(kernel, &qp->verbs.qp_base);
release_qp:
	release(qp);
	return crxe_fail(error, NULL);
}

struct ibv_qp_ex *crxe_qp_to_qp_ex(struct ibv_qp *qp)
{
	return crxe_qp(qp)->verbs.wr_start ? &crxe_qp(qp)->verbs : NULL;
}

int crxe_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	return crxe_kernel->modify_qp(crxe_node(qp->context), qp, attr, mask, NULL);
}

int crxe_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	return crxe_kernel->query_qp(crxe_node(qp->context), qp, attr, mask, init);
}

int crxe_destroy_qp(struct ibv_qp *qp)
{
	struct ibv_pd *pd = qp->pd;
	int error = crxe_kernel->destroy_qp(crxe_node(qp->context), qp);

	if (error)
		return error;
	crxe_unuse(pd);
	release(crxe_qp(qp));
	return 0;
}
