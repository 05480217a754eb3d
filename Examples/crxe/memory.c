/* Objects without queues: domains, memory regions and windows, address handles, completion channels. */
#include "crxe.h"

/* --- protection, parent and thread domains --- */

struct ibv_pd *crxe_alloc_pd(struct ibv_context *context)
{
	struct crxe_pd *pd = calloc(1, sizeof(*pd));
	int error;

	if (!pd)
		return NULL;
	error = crxe_kernel->alloc_pd(crxe_node(context), &pd->verbs, context, NULL);
	if (error) {
		free(pd);
		return crxe_fail(error, NULL);
	}
	return &pd->verbs;
}

struct ibv_pd *crxe_alloc_parent_domain(struct ibv_context *context, struct ibv_parent_domain_init_attr *attr)
{
	struct crxe_pd *pd;

	if (attr->comp_mask & ~(uint32_t)IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT)
		return crxe_fail(EOPNOTSUPP, "the kernel allocates the queues: crxe supports no allocators");
	if (!attr->pd || attr->pd->context != context || crxe_pd(attr->pd)->parent)
		return crxe_fail(EINVAL, "pd: a parent domain needs a protection domain of the same open device");
	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return NULL;
	rdma_init_pd(&pd->verbs, context, attr->pd->handle);
	pd->parent = crxe_pd(attr->pd);
	pd->single_threaded = attr->td != NULL;
	crxe_use(attr->pd);
	return &pd->verbs;
}

int crxe_dealloc_pd(struct ibv_pd *ibpd)
{
	struct crxe_pd *pd = crxe_pd(ibpd);
	int error = 0;

	if (__atomic_load_n(&pd->users, __ATOMIC_RELAXED))
		return crxe_refuse(EBUSY, "memory regions, queue pairs or others still use the domain: destroy them first");
	if (pd->parent)
		crxe_unuse(&pd->parent->verbs);
	else
		error = crxe_kernel->dealloc_pd(crxe_node(ibpd->context), ibpd);
	if (!error)
		free(pd);
	return error;
}

struct ibv_td *crxe_alloc_td(struct ibv_context *context, struct ibv_td_init_attr *attr)
{
	struct crxe_td *td;

	if (attr->comp_mask)
		return crxe_fail(EOPNOTSUPP, NULL);
	td = calloc(1, sizeof(*td));
	if (!td)
		return NULL;
	rdma_init_td(&td->verbs, context);
	return &td->verbs;
}

int crxe_dealloc_td(struct ibv_td *td)
{
	free(td);
	return 0;
}

/* --- memory regions and windows --- */

struct ibv_mr *crxe_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	struct crxe_mr *mr = calloc(1, sizeof(*mr));
	int error;

	if (!mr)
		return NULL;
	error = crxe_kernel->reg_mr(crxe_node(pd->context), &mr->verbs, pd, addr, length, iova, access, NULL);
	if (error) {
		free(mr);
		return crxe_fail(error, NULL);
	}
	crxe_use(pd);
	return &mr->verbs;
}

int crxe_dereg_mr(struct ibv_mr *mr)
{
	struct ibv_pd *pd = mr->pd;
	int error = crxe_kernel->dereg_mr(crxe_node(mr->context), mr);

	if (error)
		return error;
	free(mr);
	crxe_unuse(pd);
	return 0;
}

struct ibv_mw *crxe_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct crxe_mw *mw = calloc(1, sizeof(*mw));
	int error;

	if (!mw)
		return NULL;
	error = crxe_kernel->alloc_mw(crxe_node(pd->context), &mw->verbs, pd, type, NULL);
	if (error) {
		free(mw);
		return crxe_fail(error, NULL);
	}
	crxe_use(pd);
	return &mw->verbs;
}

int crxe_dealloc_mw(struct ibv_mw *mw)
{
	struct ibv_pd *pd = mw->pd;
	int error = crxe_kernel->dealloc_mw(crxe_node(mw->context), mw);

	if (error)
		return error;
	free(mw);
	crxe_unuse(pd);
	return 0;
}

/* --- address handles and multicast --- */

struct ibv_ah *crxe_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct rxe_create_ah_resp response = { 0 };
	struct rdma_udata udata = rdma_udata_of(NULL, 0, &response, sizeof(response));
	struct crxe_ah *ah = calloc(1, sizeof(*ah));
	int error;

	if (!ah)
		return NULL;
	error = crxe_kernel->create_ah(crxe_node(pd->context), &ah->verbs, pd, attr, &udata);
	if (error) {
		free(ah);
		return crxe_fail(error, NULL);
	}
	if (!response.ah_num) {
		crxe_kernel->destroy_ah(crxe_node(pd->context), &ah->verbs);
		free(ah);
		return crxe_fail(EOPNOTSUPP, "the kernel does not number address handles: crxe needs Linux 5.18");
	}
	ah->number = response.ah_num;
	crxe_use(pd);
	return &ah->verbs;
}

int crxe_destroy_ah(struct ibv_ah *ah)
{
	struct ibv_pd *pd = ah->pd;
	int error = crxe_kernel->destroy_ah(crxe_node(ah->context), ah);

	if (error)
		return error;
	free(ah);
	crxe_unuse(pd);
	return 0;
}

int crxe_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	return crxe_kernel->attach_mcast(crxe_node(qp->context), qp, gid, lid);
}

int crxe_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	return crxe_kernel->detach_mcast(crxe_node(qp->context), qp, gid, lid);
}

/* --- completion channels, from which the core reads the events --- */

struct ibv_comp_channel *crxe_create_comp_channel(struct ibv_context *context)
{
	struct crxe_channel *channel = calloc(1, sizeof(*channel));
	int error;

	if (!channel)
		return NULL;
	error = crxe_kernel->create_comp_channel(crxe_node(context), &channel->verbs, context);
	if (error) {
		free(channel);
		return crxe_fail(error, NULL);
	}
	return &channel->verbs;
}

int crxe_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	int error = crxe_kernel->destroy_comp_channel(crxe_node(channel->context), channel);

	if (!error)
		free(channel);
	return error;
}
