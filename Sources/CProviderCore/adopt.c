#include "rdma_core.h"

/* Functions for the slots of context->ops that the inline functions of verbs.h call without a check. */

static struct ibv_mw *no_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	(void)pd;
	(void)type;
	errno = EOPNOTSUPP;
	return NULL;
}

static int no_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	(void)qp;
	(void)mw;
	(void)bind;
	return EOPNOTSUPP;
}

static int no_dealloc_mw(struct ibv_mw *mw)
{
	(void)mw;
	return EOPNOTSUPP;
}

static int no_poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *wc)
{
	(void)cq;
	(void)count;
	(void)wc;
	return -EOPNOTSUPP;
}

static int no_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	(void)cq;
	(void)solicited_only;
	return EOPNOTSUPP;
}

static int no_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	(void)srq;
	*bad_wr = wr;
	return EOPNOTSUPP;
}

static int no_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
	(void)qp;
	*bad_wr = wr;
	return EOPNOTSUPP;
}

static int no_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
	(void)qp;
	*bad_wr = wr;
	return EOPNOTSUPP;
}

static int no_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t attr_size)
{
	(void)context;
	(void)port;
	(void)attr;
	(void)attr_size;
	return EOPNOTSUPP;
}

const struct ibv_context_ops rdma_unsupported_ops = {
	.alloc_mw = no_alloc_mw,
	.bind_mw = no_bind_mw,
	.dealloc_mw = no_dealloc_mw,
	.poll_cq = no_poll_cq,
	.req_notify_cq = no_req_notify_cq,
	.post_srq_recv = no_post_srq_recv,
	.post_send = no_post_send,
	.post_recv = no_post_recv,
};

#define FILL(slot)                                                                                         \
	do {                                                                                               \
		if (!ops->slot)                                                                            \
			ops->slot = rdma_unsupported_ops.slot;                                             \
	} while (0)

/* struct verbs_context grows at its front: one from an older verbs.h lacks the newest slots. */
#define HAS_SLOT(slot) (verbs->sz >= sizeof(*verbs) - offsetof(struct verbs_context, slot))

#define COPY_AS(slot, entry)                                                                               \
	do {                                                                                               \
		if (RDMA_PROVIDES(table, entry) && HAS_SLOT(slot))                                         \
			verbs->slot = table->entry;                                                        \
	} while (0)
#define COPY(entry) COPY_AS(entry, entry)

void rdma_adopt_context(const struct rdma_context *opened)
{
	struct ibv_context_ops *ops = &opened->context->ops;
	const struct rdma_context_ops *table = opened->ops;
	struct verbs_context *verbs;

	if (opened->flags & RDMA_CONTEXT_FOREIGN)
		return;

	FILL(alloc_mw);
	FILL(bind_mw);
	FILL(dealloc_mw);
	FILL(poll_cq);
	FILL(req_notify_cq);
	FILL(post_srq_recv);
	FILL(post_send);
	FILL(post_recv);

	verbs = verbs_get_ctx(opened->context);
	COPY(query_port);
	/* For a null slot verbs.h calls libibverbs, which does not know this context. */
	if (HAS_SLOT(query_port) && !verbs->query_port)
		verbs->query_port = no_query_port;
	COPY(advise_mr);
	COPY(alloc_null_mr);
	COPY(read_counters);
	COPY(attach_counters_point_flow);
	COPY(create_counters);
	COPY(destroy_counters);
	COPY(reg_dm_mr);
	COPY(alloc_dm);
	COPY(free_dm);
	COPY(modify_qp_rate_limit);
	COPY(alloc_parent_domain);
	COPY(dealloc_td);
	COPY(alloc_td);
	COPY(modify_cq);
	COPY(destroy_rwq_ind_table);
	COPY(create_rwq_ind_table);
	COPY(destroy_wq);
	COPY(modify_wq);
	COPY(create_wq);
	COPY(query_rt_values);
	COPY(create_cq_ex);
	COPY(query_device_ex);
	COPY_AS(ibv_destroy_flow, destroy_flow);
	COPY_AS(ibv_create_flow, create_flow);
	COPY(open_qp);
	COPY(create_qp_ex);
	COPY(get_srq_num);
	COPY(post_srq_ops);
	COPY(destroy_flow_action);
	COPY(create_flow_action_esp);
	COPY(modify_flow_action_esp);
	COPY(create_srq_ex);
	COPY(open_xrcd);
	COPY(close_xrcd);
}
