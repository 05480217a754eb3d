/* qp.c - queue pairs: create, modify, query, destroy */
#include "ctest.h"

enum { CTEST_QP_EVENTS = 8 }; /* types of asynchronous event that a queue pair can have unread */

static struct ctest_qp *pairs[CTEST_MAX_QP];
static uint32_t next_number = 0x100;

struct ctest_qp *ctest_find_qp(uint32_t number)
{
	struct ctest_qp *qp = pairs[number % CTEST_MAX_QP];

	return qp && qp->verbs.qp_base.qp_num == number ? qp : NULL;
}

struct ctest_qp *ctest_next_qp(const struct ctest_qp *after)
{
	uint32_t i = after ? after->verbs.qp_base.qp_num % CTEST_MAX_QP + 1 : 0;

	while (i < CTEST_MAX_QP && !pairs[i])
		i++;
	return i < CTEST_MAX_QP ? pairs[i] : NULL;
}

static int check_init(const struct ibv_context *context, const struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;

	if (attr->comp_mask & ~known)
		return EOPNOTSUPP;
	if ((attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) && attr->create_flags)
		return EOPNOTSUPP;
	if ((attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) && (attr->send_ops_flags & ~ctest_send_ops()))
		return EOPNOTSUPP;
	if (attr->qp_type != IBV_QPT_RC && attr->qp_type != IBV_QPT_UD)
		return EOPNOTSUPP;
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->send_cq || !attr->recv_cq)
		return EINVAL;
	if (attr->pd->context != context || attr->send_cq->context != context || attr->recv_cq->context != context ||
	    (attr->srq && attr->srq->context != context))
		return EINVAL;
	if (attr->cap.max_send_wr > CTEST_MAX_WR || attr->cap.max_send_sge > CTEST_MAX_SGE ||
	    attr->cap.max_inline_data > CTEST_MAX_INLINE)
		return EINVAL;
	return 0;
}

/* Assigns the queue pair a QPN, and counts it as a user of its PD, CQs and SRQ. */
static int enter_pair(struct ctest_qp *qp)
{
	struct ibv_qp *base = &qp->verbs.qp_base;
	uint32_t tries, number;
	int error = ENOMEM;

	ctest_lock();
	for (tries = 0; tries < CTEST_MAX_QP; tries++) {
		number = next_number++ & 0xffffff;
		if (pairs[number % CTEST_MAX_QP] || number < 2)
			continue;
		pairs[number % CTEST_MAX_QP] = qp;
		base->qp_num = base->handle = number;
		ctest_pd(base->pd)->users++;
		ctest_cq(base->send_cq)->users++;
		ctest_cq(base->recv_cq)->users++;
		if (base->srq)
			ctest_srq(base->srq)->users++;
		error = 0;
		break;
	}
	ctest_unlock();
	return error;
}

static void free_pair(struct ctest_qp *qp)
{
	free(qp->recv.slots);
	free(qp->sends);
	free(qp);
}

/* Allocates the rings of a queue pair, and reserves room for its events. */
static int allocate_rings(struct ctest_qp *qp, struct ctest_context *context, const struct ibv_qp_init_attr_ex *attr)
{
	/* ibv_create_qp(3): with a shared receive queue, max_recv_wr and max_recv_sge are ignored. */
	uint32_t receives = attr->srq ? 0 : attr->cap.max_recv_wr;
	int error = ctest_ring_init(&qp->recv, receives, attr->srq ? 0 : attr->cap.max_recv_sge);

	if (error)
		return error;
	qp->capacity = attr->cap.max_send_wr;
	qp->sends = calloc(qp->capacity + 1, sizeof(*qp->sends));
	if (!qp->sends)
		return ENOMEM;
	return ctest_queue_reserve(&context->events, CTEST_QP_EVENTS);
}

struct ibv_qp *ctest_create_qp_ex(struct ibv_context *verbs, struct ibv_qp_init_attr_ex *attr)
{
	struct ctest_context *context = ctest_context(verbs);
	int error = ctest_has_failed(verbs) ? EIO : check_init(verbs, attr);
	struct ctest_qp *qp;

	if (error)
		return ctest_fail(error);
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return ctest_fail(ENOMEM);
	error = allocate_rings(qp, context, attr);
	if (error) {
		free_pair(qp);
		return ctest_fail(error);
	}
	if (attr->srq)
		attr->cap.max_recv_wr = attr->cap.max_recv_sge = 0;
	qp->init = *attr;
	qp->attr.cap = attr->cap;
	pthread_mutex_init(&qp->post_lock, NULL);
	rdma_init_qp(&qp->verbs, verbs, attr);
	if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
		ctest_set_builders(&qp->verbs, attr->send_ops_flags);
	error = enter_pair(qp);
	if (error) {
		ctest_queue_release(&context->events, CTEST_QP_EVENTS);
		rdma_fini_qp(&qp->verbs.qp_base);
		pthread_mutex_destroy(&qp->post_lock);
		free_pair(qp);
		return ctest_fail(error);
	}
	return &qp->verbs.qp_base;
}

struct ibv_qp_ex *ctest_qp_to_qp_ex(struct ibv_qp *verbs)
{
	struct ctest_qp *qp = ctest_qp(verbs);

	return qp->init.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS ? &qp->verbs : NULL;
}

int ctest_destroy_qp(struct ibv_qp *base)
{
	struct ctest_qp *qp = ctest_qp(base);
	struct ctest_queue *events = &ctest_context(base->context)->events;

	ctest_lock();
	pairs[base->qp_num % CTEST_MAX_QP] = NULL;
	ctest_pd(base->pd)->users--;
	ctest_cq(base->send_cq)->users--;
	ctest_cq(base->recv_cq)->users--;
	if (base->srq)
		ctest_srq(base->srq)->users--;
	qp->count = 0;
	ctest_progress(qp);
	/* Executes the requests of peers that wait for a receive of this queue pair; they fail. */
	ctest_progress_all();
	ctest_unlock();

	ctest_queue_drop(events, qp);
	ctest_queue_release(events, CTEST_QP_EVENTS);
	rdma_wait_qp_events(base, qp->async_read);
	rdma_fini_qp(base);
	pthread_mutex_destroy(&qp->post_lock);
	free_pair(qp);
	return 0;
}

/* --- modify: IBTA volume 1, 11.2.5.2 --- */

struct transition {
	enum ibv_qp_type type;
	enum ibv_qp_state from, to;
	int required, optional;
};

static const struct transition transitions[] = {
	{ IBV_QPT_RC, IBV_QPS_RESET, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, 0 },
	{ IBV_QPT_RC, IBV_QPS_INIT, IBV_QPS_INIT, 0, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS },
	{ IBV_QPT_RC, IBV_QPS_INIT, IBV_QPS_RTR,
	  IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
		  IBV_QP_MIN_RNR_TIMER,
	  IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX },
	{ IBV_QPT_RC, IBV_QPS_RTR, IBV_QPS_RTS,
	  IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
	  IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER },
	{ IBV_QPT_RC, IBV_QPS_RTS, IBV_QPS_RTS, 0, IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER },
	{ IBV_QPT_UD, IBV_QPS_RESET, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY, 0 },
	{ IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_INIT, 0, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY },
	{ IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_RTR, 0, IBV_QP_PKEY_INDEX | IBV_QP_QKEY },
	{ IBV_QPT_UD, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN, IBV_QP_CUR_STATE | IBV_QP_QKEY },
	{ IBV_QPT_UD, IBV_QPS_RTS, IBV_QPS_RTS, 0, IBV_QP_CUR_STATE | IBV_QP_QKEY },
};

static int check_transition(enum ibv_qp_type type, enum ibv_qp_state from, enum ibv_qp_state to, int mask)
{
	mask &= ~IBV_QP_STATE;
	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return mask & ~IBV_QP_CUR_STATE ? EINVAL : 0;
	for (size_t i = 0; i < sizeof(transitions) / sizeof(*transitions); i++) {
		const struct transition *t = &transitions[i];

		if (t->type == type && t->from == from && t->to == to)
			return (mask & t->required) != t->required || (mask & ~(t->required | t->optional)) ? EINVAL : 0;
	}
	return EINVAL;
}

static int check_values(const struct ibv_qp_attr *attr, int mask)
{
	if ((mask & IBV_QP_PORT) && attr->port_num != CTEST_PORT)
		return EINVAL;
	if ((mask & IBV_QP_PKEY_INDEX) && attr->pkey_index != 0)
		return EINVAL;
	if ((mask & IBV_QP_PATH_MTU) && (attr->path_mtu < IBV_MTU_256 || attr->path_mtu > IBV_MTU_4096))
		return EINVAL;
	if ((mask & IBV_QP_AV) && !ctest_ah_attr_valid(&attr->ah_attr))
		return EINVAL;
	if ((mask & IBV_QP_TIMEOUT) && attr->timeout > 31)
		return EINVAL;
	if ((mask & IBV_QP_RETRY_CNT) && attr->retry_cnt > 7)
		return EINVAL;
	if ((mask & IBV_QP_RNR_RETRY) && attr->rnr_retry > 7)
		return EINVAL;
	if ((mask & IBV_QP_MIN_RNR_TIMER) && attr->min_rnr_timer > 31)
		return EINVAL;
	if ((mask & IBV_QP_MAX_QP_RD_ATOMIC) && attr->max_rd_atomic > 16)
		return EINVAL;
	return 0;
}

#define COPY(bit, field)                                                                                   \
	do {                                                                                               \
		if (mask & (bit))                                                                          \
			to->field = from->field;                                                           \
	} while (0)

static void copy_values(struct ibv_qp_attr *to, const struct ibv_qp_attr *from, int mask)
{
	COPY(IBV_QP_ACCESS_FLAGS, qp_access_flags);
	COPY(IBV_QP_PKEY_INDEX, pkey_index);
	COPY(IBV_QP_PORT, port_num);
	COPY(IBV_QP_QKEY, qkey);
	COPY(IBV_QP_AV, ah_attr);
	COPY(IBV_QP_PATH_MTU, path_mtu);
	COPY(IBV_QP_TIMEOUT, timeout);
	COPY(IBV_QP_RETRY_CNT, retry_cnt);
	COPY(IBV_QP_RNR_RETRY, rnr_retry);
	COPY(IBV_QP_RQ_PSN, rq_psn);
	COPY(IBV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic);
	COPY(IBV_QP_MIN_RNR_TIMER, min_rnr_timer);
	COPY(IBV_QP_SQ_PSN, sq_psn);
	COPY(IBV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic);
	COPY(IBV_QP_DEST_QPN, dest_qp_num);
}

void ctest_enter_error(struct ctest_qp *qp)
{
	if (qp->verbs.qp_base.state == IBV_QPS_ERR)
		return;
	qp->verbs.qp_base.state = IBV_QPS_ERR;
	ctest_flush(qp);
	if (qp->verbs.qp_base.srq)
		ctest_raise(qp->verbs.qp_base.context, IBV_EVENT_QP_LAST_WQE_REACHED, qp);
}

static void enter_state(struct ctest_qp *qp, enum ibv_qp_state state)
{
	if (state == IBV_QPS_ERR) {
		ctest_enter_error(qp);
		return;
	}
	qp->verbs.qp_base.state = state;
	if (state == IBV_QPS_RESET)
		qp->count = qp->recv.count = 0;
	/* Requests of peers may wait for this queue pair. */
	ctest_progress_all();
}

int ctest_modify_qp(struct ibv_qp *base, struct ibv_qp_attr *attr, int mask)
{
	struct ctest_qp *qp = ctest_qp(base);
	enum ibv_qp_state to;
	int error;

	ctest_lock();
	to = mask & IBV_QP_STATE ? attr->qp_state : base->state;
	if (ctest_context(base->context)->failed)
		error = EIO;
	else if ((mask & IBV_QP_CUR_STATE) && attr->cur_qp_state != base->state)
		error = EINVAL;
	else
		error = check_transition(base->qp_type, base->state, to, mask);
	if (!error)
		error = check_values(attr, mask);
	if (!error) {
		copy_values(&qp->attr, attr, mask);
		enter_state(qp, to);
	}
	ctest_unlock();
	return error;
}

int ctest_query_qp(struct ibv_qp *base, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct ctest_qp *qp = ctest_qp(base);

	(void)mask; /* the attributes that must be returned; this provider returns all */
	if (ctest_has_failed(base->context))
		return EIO;
	ctest_lock();
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = base->state;
	ctest_unlock();
	*init = (struct ibv_qp_init_attr){
		.qp_context = base->qp_context,
		.send_cq = base->send_cq,
		.recv_cq = base->recv_cq,
		.srq = base->srq,
		.cap = qp->init.cap,
		.qp_type = base->qp_type,
		.sq_sig_all = qp->init.sq_sig_all,
	};
	return 0;
}

/*
 * Tests send commands to the device through multicast groups whose GID begins with ff0e:6374:6573:7400 ("ctest"):
 * byte 14 is the command, byte 15 its argument. No other group exists.
 */
enum {
	COMMAND_RAISE = 1,  /* raise the asynchronous event of that type; IBV_EVENT_DEVICE_FATAL: the device fails */
	COMMAND_STATUS = 2, /* complete the next send with that status */
};

static const uint8_t command_prefix[14] = { 0xff, 0x0e, 'c', 't', 'e', 's', 't' };

static void raise_for(struct ctest_qp *qp, enum ibv_event_type type)
{
	struct ibv_qp *base = &qp->verbs.qp_base;
	void *subject = qp;

	switch (type) {
	case IBV_EVENT_DEVICE_FATAL:
		ctest_device_fatal(ctest_context(base->context));
		return;
	case IBV_EVENT_CQ_ERR:
		subject = base->recv_cq;
		break;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		subject = base->srq;
		break;
	case IBV_EVENT_PORT_ACTIVE:
	case IBV_EVENT_PORT_ERR:
	case IBV_EVENT_LID_CHANGE:
	case IBV_EVENT_PKEY_CHANGE:
	case IBV_EVENT_SM_CHANGE:
	case IBV_EVENT_CLIENT_REREGISTER:
	case IBV_EVENT_GID_CHANGE:
		subject = (void *)(uintptr_t)CTEST_PORT;
		break;
	default:
		break;
	}
	if (subject)
		ctest_raise(base->context, type, subject);
}

int ctest_attach_mcast(struct ibv_qp *base, const union ibv_gid *gid, uint16_t lid)
{
	struct ctest_qp *qp = ctest_qp(base);
	int error = 0;

	(void)lid;
	if (memcmp(gid->raw, command_prefix, sizeof(command_prefix)))
		return EOPNOTSUPP;
	ctest_lock();
	if (ctest_context(base->context)->failed)
		error = EIO;
	else if (gid->raw[14] == COMMAND_RAISE)
		raise_for(qp, (enum ibv_event_type)gid->raw[15]);
	else if (gid->raw[14] == COMMAND_STATUS)
		qp->forced = (enum ibv_wc_status)gid->raw[15];
	else
		error = EINVAL;
	ctest_unlock();
	return error;
}

int ctest_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	(void)qp;
	(void)lid;
	return memcmp(gid->raw, command_prefix, sizeof(command_prefix)) ? EINVAL : 0;
}
