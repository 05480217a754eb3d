#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

/* ---- protection domains and memory ---- */

DROPIN_EXPORT_AGAIN(ibv_alloc_pd)
struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	BEHIND_OBJECT(context, ibv_alloc_pd, context);
	return OBJECT(context, alloc_pd, dealloc_pd, context);
}

DROPIN_EXPORT_AGAIN(ibv_dealloc_pd)
int ibv_dealloc_pd(struct ibv_pd *pd)
{
	BEHIND_STATUS(pd->context, ibv_dealloc_pd, pd);
	return STATUS(pd->context, dealloc_pd, pd);
}

DROPIN_EXPORT struct ibv_pd *ibv_import_pd(struct ibv_context *context, uint32_t handle)
{
	BEHIND_OBJECT(context, ibv_import_pd, context, handle);
	return OBJECT(context, import_pd, unimport_pd, context, handle);
}

DROPIN_EXPORT void ibv_unimport_pd(struct ibv_pd *pd)
{
	if (!is_provided(pd->context))
		behind.ibv_unimport_pd(pd);
	else if (!linux_is_forked_child())
		ENTRY(pd->context, unimport_pd)(pd);
}

DROPIN_EXPORT_AGAIN(ibv_reg_mr)
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
	BEHIND_OBJECT(pd->context, ibv_reg_mr, pd, address, length, access);
	return OBJECT(pd->context, reg_mr, dereg_mr, pd, address, length, (uintptr_t)address, (unsigned int)access);
}

DROPIN_EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
	BEHIND_OBJECT(pd->context, ibv_reg_mr_iova, pd, address, length, iova, access);
	return OBJECT(pd->context, reg_mr, dereg_mr, pd, address, length, iova, (unsigned int)access);
}

DROPIN_EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
					      unsigned int access)
{
	BEHIND_OBJECT(pd->context, ibv_reg_mr_iova2, pd, address, length, iova, access);
	return OBJECT(pd->context, reg_mr, dereg_mr, pd, address, length, iova, access);
}

DROPIN_EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
					       int access)
{
	BEHIND_OBJECT(pd->context, ibv_reg_dmabuf_mr, pd, offset, length, iova, fd, access);
	return OBJECT(pd->context, reg_dmabuf_mr, dereg_mr, pd, offset, length, iova, fd, access);
}

DROPIN_EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access)
{
	int error;

	BEHIND_STATUS(mr->context, ibv_rereg_mr, mr, flags, pd, address, length, access);
	/* As libibverbs. */
	if ((access && !(flags & IBV_REREG_MR_CHANGE_ACCESS)) ||
	    ((flags & IBV_REREG_MR_CHANGE_TRANSLATION) && (!address || !length))) {
		errno = EINVAL;
		return IBV_REREG_MR_ERR_INPUT;
	}
	error = STATUS(mr->context, rereg_mr, mr, flags, pd, address, length, access);
	if (!error)
		return 0;
	errno = error;
	/* After these the region is what it was. */
	return error == EINVAL || error == EOPNOTSUPP || error == EPERM ? IBV_REREG_MR_ERR_INPUT : IBV_REREG_MR_ERR_CMD;
}

DROPIN_EXPORT_AGAIN(ibv_dereg_mr)
int ibv_dereg_mr(struct ibv_mr *mr)
{
	BEHIND_STATUS(mr->context, ibv_dereg_mr, mr);
	return STATUS(mr->context, dereg_mr, mr);
}

DROPIN_EXPORT struct ibv_mr *ibv_import_mr(struct ibv_pd *pd, uint32_t handle)
{
	BEHIND_OBJECT(pd->context, ibv_import_mr, pd, handle);
	return OBJECT(pd->context, import_mr, unimport_mr, pd, handle);
}

DROPIN_EXPORT void ibv_unimport_mr(struct ibv_mr *mr)
{
	if (!is_provided(mr->context))
		behind.ibv_unimport_mr(mr);
	else if (!linux_is_forked_child())
		ENTRY(mr->context, unimport_mr)(mr);
}

DROPIN_EXPORT struct ibv_dm *ibv_import_dm(struct ibv_context *context, uint32_t handle)
{
	BEHIND_OBJECT(context, ibv_import_dm, context, handle);
	return OBJECT(context, import_dm, unimport_dm, context, handle);
}

DROPIN_EXPORT void ibv_unimport_dm(struct ibv_dm *dm)
{
	if (!is_provided(dm->context))
		behind.ibv_unimport_dm(dm);
	else if (!linux_is_forked_child())
		ENTRY(dm->context, unimport_dm)(dm);
}

DROPIN_EXPORT int ibv_dm_export_dmabuf_fd(struct ibv_dm *dm)
{
	int result;

	if (!is_provided(dm->context))
		return behind.ibv_dm_export_dmabuf_fd ? behind.ibv_dm_export_dmabuf_fd(dm) : minus_one(EOPNOTSUPP);
	if (!ENTRY(dm->context, dm_export_dmabuf_fd))
		return minus_one(EOPNOTSUPP);
	if (linux_is_forked_child())
		return minus_one(EPERM);
	result = ENTRY(dm->context, dm_export_dmabuf_fd)(dm);
	return result < 0 ? minus_one(-result) : result;
}

/* struct ibv_dmah of verbs.h begins with the context. */
static struct ibv_context *context_of_dmah(const struct ibv_dmah *dmah)
{
	return *(struct ibv_context *const *)(const void *)dmah;
}

DROPIN_EXPORT struct ibv_dmah *ibv_alloc_dmah(struct ibv_context *context, struct ibv_dmah_init_attr *attr)
{
	BEHIND_OBJECT(context, ibv_alloc_dmah, context, attr);
	return OBJECT(context, alloc_dmah, dealloc_dmah, context, attr);
}

DROPIN_EXPORT int ibv_dealloc_dmah(struct ibv_dmah *dmah)
{
	BEHIND_STATUS(context_of_dmah(dmah), ibv_dealloc_dmah, dmah);
	return STATUS(context_of_dmah(dmah), dealloc_dmah, dmah);
}

/* ---- completion channels, completion queues, events ---- */

DROPIN_EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	BEHIND_OBJECT(context, ibv_create_comp_channel, context);
	return OBJECT(context, create_comp_channel, destroy_comp_channel, context);
}

DROPIN_EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	BEHIND_STATUS(channel->context, ibv_destroy_comp_channel, channel);
	return STATUS(channel->context, destroy_comp_channel, channel);
}

DROPIN_EXPORT_AGAIN(ibv_create_cq)
struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
					   struct ibv_comp_channel *channel, int vector)
{
	BEHIND_OBJECT(context, ibv_create_cq, context, cqe, cq_context, channel, vector);
	return OBJECT(context, create_cq, destroy_cq, context, cqe, cq_context, channel, vector);
}

DROPIN_EXPORT_AGAIN(ibv_resize_cq)
int ibv_resize_cq(struct ibv_cq *cq, int cqe)
{
	BEHIND_STATUS(cq->context, ibv_resize_cq, cq, cqe);
	return STATUS(cq->context, resize_cq, cq, cqe);
}

DROPIN_EXPORT_AGAIN(ibv_destroy_cq)
int ibv_destroy_cq(struct ibv_cq *cq)
{
	BEHIND_STATUS(cq->context, ibv_destroy_cq, cq);
	return STATUS(cq->context, destroy_cq, cq);
}

DROPIN_EXPORT_AGAIN(ibv_get_cq_event)
int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	int error;

	if (!is_provided(channel->context))
		return behind.ibv_get_cq_event(channel, cq, cq_context);
	if (linux_is_forked_child())
		return minus_one(EPERM);
	error = rdma_get_cq_event(dropin_context(channel->context)->provider_ops, channel, cq);
	if (error)
		return minus_one(error);
	*cq_context = (*cq)->cq_context;
	return 0;
}

DROPIN_EXPORT_AGAIN(ibv_ack_cq_events)
void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
	if (!is_provided(cq->context))
		behind.ibv_ack_cq_events(cq, count);
	else
		rdma_ack_cq_events(cq, count);
}

DROPIN_EXPORT_AGAIN(ibv_get_async_event)
int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	int error;

	if (!is_provided(context))
		return behind.ibv_get_async_event(context, event);
	if (linux_is_forked_child())
		return minus_one(EPERM);
	error = rdma_get_async_event(dropin_context(context)->provider_ops, context, event);
	return error ? minus_one(error) : 0;
}

DROPIN_EXPORT_AGAIN(ibv_ack_async_event)
void ibv_ack_async_event(struct ibv_async_event *event)
{
	/* It counts in public members of the object, for every library alike. */
	rdma_ack_async_event(event);
}

/* ---- shared receive queues ---- */

DROPIN_EXPORT_AGAIN(ibv_create_srq)
struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct ibv_srq_init_attr_ex extended = {};
	struct ibv_srq *srq;

	BEHIND_OBJECT(pd->context, ibv_create_srq, pd, attr);
	extended.srq_context = attr->srq_context;
	extended.attr = attr->attr;
	extended.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
	extended.srq_type = IBV_SRQT_BASIC;
	extended.pd = pd;
	srq = OBJECT(pd->context, create_srq_ex, destroy_srq, pd->context, &extended);
	if (srq)
		attr->attr = extended.attr;
	return srq;
}

DROPIN_EXPORT_AGAIN(ibv_modify_srq)
int ibv_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask)
{
	BEHIND_STATUS(srq->context, ibv_modify_srq, srq, attr, mask);
	return STATUS(srq->context, modify_srq, srq, attr, mask);
}

DROPIN_EXPORT_AGAIN(ibv_query_srq)
int ibv_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr)
{
	BEHIND_STATUS(srq->context, ibv_query_srq, srq, attr);
	return STATUS(srq->context, query_srq, srq, attr);
}

DROPIN_EXPORT_AGAIN(ibv_destroy_srq)
int ibv_destroy_srq(struct ibv_srq *srq)
{
	BEHIND_STATUS(srq->context, ibv_destroy_srq, srq);
	return STATUS(srq->context, destroy_srq, srq);
}

/* ---- queue pairs ---- */

DROPIN_EXPORT_AGAIN(ibv_create_qp)
struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp_init_attr_ex extended = {};
	struct ibv_qp *qp;

	BEHIND_OBJECT(pd->context, ibv_create_qp, pd, attr);
	/* struct ibv_qp_init_attr_ex begins with these members. */
	extended.qp_context = attr->qp_context;
	extended.send_cq = attr->send_cq;
	extended.recv_cq = attr->recv_cq;
	extended.srq = attr->srq;
	extended.cap = attr->cap;
	extended.qp_type = attr->qp_type;
	extended.sq_sig_all = attr->sq_sig_all;
	extended.comp_mask = IBV_QP_INIT_ATTR_PD;
	extended.pd = pd;
	qp = OBJECT(pd->context, create_qp_ex, destroy_qp, pd->context, &extended);
	if (qp)
		attr->cap = extended.cap;
	return qp;
}

DROPIN_EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	BEHIND_OBJECT(qp->context, ibv_qp_to_qp_ex, qp);
	return ENTRY(qp->context, qp_to_qp_ex) ? ENTRY(qp->context, qp_to_qp_ex)(qp) : NULL;
}

DROPIN_EXPORT_AGAIN(ibv_modify_qp)
int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	BEHIND_STATUS(qp->context, ibv_modify_qp, qp, attr, mask);
	return STATUS(qp->context, modify_qp, qp, attr, mask);
}

DROPIN_EXPORT_AGAIN(ibv_query_qp)
int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	BEHIND_STATUS(qp->context, ibv_query_qp, qp, attr, mask, init);
	return STATUS(qp->context, query_qp, qp, attr, mask, init);
}

DROPIN_EXPORT_AGAIN(ibv_destroy_qp)
int ibv_destroy_qp(struct ibv_qp *qp)
{
	BEHIND_STATUS(qp->context, ibv_destroy_qp, qp);
	return STATUS(qp->context, destroy_qp, qp);
}

/* A set of capabilities, not an errno value. */
DROPIN_EXPORT int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags)
{
	if (!is_provided(qp->context))
		return behind.ibv_query_qp_data_in_order ? behind.ibv_query_qp_data_in_order(qp, opcode, flags) : 0;
	if (linux_is_forked_child() || !ENTRY(qp->context, query_qp_data_in_order))
		return 0;
	return ENTRY(qp->context, query_qp_data_in_order)(qp, opcode, flags);
}

DROPIN_EXPORT int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	BEHIND_STATUS(qp->context, ibv_query_ece, qp, ece);
	return STATUS(qp->context, query_ece, qp, ece, sizeof(*ece));
}

DROPIN_EXPORT int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	BEHIND_STATUS(qp->context, ibv_set_ece, qp, ece);
	return STATUS(qp->context, set_ece, qp, ece, sizeof(*ece));
}

DROPIN_EXPORT_AGAIN(ibv_attach_mcast)
int ibv_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	BEHIND_STATUS(qp->context, ibv_attach_mcast, qp, gid, lid);
	return STATUS(qp->context, attach_mcast, qp, gid, lid);
}

DROPIN_EXPORT_AGAIN(ibv_detach_mcast)
int ibv_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	BEHIND_STATUS(qp->context, ibv_detach_mcast, qp, gid, lid);
	return STATUS(qp->context, detach_mcast, qp, gid, lid);
}

/* ---- completion counters; struct ibv_comp_cntr of verbs.h begins with the context ---- */

static struct ibv_context *context_of_counter(const struct ibv_comp_cntr *counter)
{
	return *(struct ibv_context *const *)(const void *)counter;
}

DROPIN_EXPORT struct ibv_comp_cntr *ibv_create_comp_cntr(struct ibv_context *context,
							 struct ibv_comp_cntr_init_attr *attr)
{
	BEHIND_OBJECT(context, ibv_create_comp_cntr, context, attr);
	return OBJECT(context, create_comp_cntr, destroy_comp_cntr, context, attr);
}

#define COUNTER_FUNCTION(verb, ...)                                                                        \
	do {                                                                                               \
		BEHIND_STATUS(context_of_counter(counter), ibv_##verb, __VA_ARGS__);                       \
		return STATUS(context_of_counter(counter), verb, __VA_ARGS__);                             \
	} while (0)

DROPIN_EXPORT int ibv_destroy_comp_cntr(struct ibv_comp_cntr *counter)
{
	COUNTER_FUNCTION(destroy_comp_cntr, counter);
}

DROPIN_EXPORT int ibv_set_comp_cntr(struct ibv_comp_cntr *counter, uint64_t value)
{
	COUNTER_FUNCTION(set_comp_cntr, counter, value);
}

DROPIN_EXPORT int ibv_set_err_comp_cntr(struct ibv_comp_cntr *counter, uint64_t value)
{
	COUNTER_FUNCTION(set_err_comp_cntr, counter, value);
}

DROPIN_EXPORT int ibv_inc_comp_cntr(struct ibv_comp_cntr *counter, uint64_t amount)
{
	COUNTER_FUNCTION(inc_comp_cntr, counter, amount);
}

DROPIN_EXPORT int ibv_inc_err_comp_cntr(struct ibv_comp_cntr *counter, uint64_t amount)
{
	COUNTER_FUNCTION(inc_err_comp_cntr, counter, amount);
}

DROPIN_EXPORT int ibv_read_comp_cntr(struct ibv_comp_cntr *counter, uint64_t *value)
{
	COUNTER_FUNCTION(read_comp_cntr, counter, value);
}

DROPIN_EXPORT int ibv_read_err_comp_cntr(struct ibv_comp_cntr *counter, uint64_t *value)
{
	COUNTER_FUNCTION(read_err_comp_cntr, counter, value);
}

DROPIN_EXPORT int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct ibv_comp_cntr *counter,
					  struct ibv_qp_attach_comp_cntr_attr *attr)
{
	BEHIND_STATUS(qp->context, ibv_qp_attach_comp_cntr, qp, counter, attr);
	return STATUS(qp->context, qp_attach_comp_cntr, qp, counter, attr);
}
