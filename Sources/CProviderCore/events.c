#include "rdma_core.h"

#include <rdma/ib_user_verbs.h>
#include <unistd.h>

/* Reads one record from the kernel. The kernel never splits a record, so a short one is an unknown format: EIO. */
static int read_record(int fd, void *record, size_t size)
{
	ssize_t got = read(fd, record, size);

	if (got < 0)
		return errno;
	return (size_t)got == size ? 0 : EIO;
}

int rdma_get_cq_event(const struct rdma_context_ops *ops, struct ibv_comp_channel *channel, struct ibv_cq **cq)
{
	struct ib_uverbs_comp_event_desc record;
	int error;

	if (RDMA_PROVIDES(ops, get_cq_event) && ops->get_cq_event)
		return ops->get_cq_event(channel, cq);

	error = read_record(channel->fd, &record, sizeof(record));
	if (error)
		return error;
	*cq = (struct ibv_cq *)(uintptr_t)record.cq_handle;
	if (RDMA_PROVIDES(ops, cq_event) && ops->cq_event)
		ops->cq_event(*cq);
	return 0;
}

/* The kind of object that an asynchronous event concerns. */
enum subject { SUBJECT_PORT, SUBJECT_DEVICE, SUBJECT_CQ, SUBJECT_QP, SUBJECT_SRQ, SUBJECT_WQ };

static enum subject subject_of(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_CQ_ERR:
		return SUBJECT_CQ;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return SUBJECT_QP;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		return SUBJECT_SRQ;
	case IBV_EVENT_WQ_FATAL:
		return SUBJECT_WQ;
	case IBV_EVENT_DEVICE_FATAL:
		return SUBJECT_DEVICE;
	default:
		/* The port events, and events that a newer kernel adds: the element is a number. */
		return SUBJECT_PORT;
	}
}

int rdma_get_async_event(const struct rdma_context_ops *ops, struct ibv_context *context,
			 struct ibv_async_event *event)
{
	struct ib_uverbs_async_event_desc record;
	int error;

	if (RDMA_PROVIDES(ops, get_async_event) && ops->get_async_event)
		return ops->get_async_event(context, event);

	error = read_record(context->async_fd, &record, sizeof(record));
	if (error)
		return error;
	memset(event, 0, sizeof(*event));
	event->event_type = (enum ibv_event_type)record.event_type;
	switch (subject_of(event->event_type)) {
	case SUBJECT_CQ:
		event->element.cq = (struct ibv_cq *)(uintptr_t)record.element;
		break;
	case SUBJECT_QP:
		event->element.qp = (struct ibv_qp *)(uintptr_t)record.element;
		break;
	case SUBJECT_SRQ:
		event->element.srq = (struct ibv_srq *)(uintptr_t)record.element;
		break;
	case SUBJECT_WQ:
		event->element.wq = (struct ibv_wq *)(uintptr_t)record.element;
		break;
	case SUBJECT_PORT:
	case SUBJECT_DEVICE:
		event->element.port_num = (int)record.element;
		break;
	}
	if (RDMA_PROVIDES(ops, async_event) && ops->async_event)
		ops->async_event(context, event);
	return 0;
}

static void acknowledge(pthread_mutex_t *mutex, pthread_cond_t *cond, uint32_t *counter, uint32_t count)
{
	pthread_mutex_lock(mutex);
	*counter += count;
	pthread_cond_signal(cond);
	pthread_mutex_unlock(mutex);
}

void rdma_ack_cq_events(struct ibv_cq *cq, uint32_t count)
{
	acknowledge(&cq->mutex, &cq->cond, &cq->comp_events_completed, count);
}

void rdma_ack_async_event(const struct ibv_async_event *event)
{
	struct ibv_cq *cq = event->element.cq;
	struct ibv_qp *qp = event->element.qp;
	struct ibv_srq *srq = event->element.srq;
	struct ibv_wq *wq = event->element.wq;

	switch (subject_of(event->event_type)) {
	case SUBJECT_CQ:
		acknowledge(&cq->mutex, &cq->cond, &cq->async_events_completed, 1);
		break;
	case SUBJECT_QP:
		acknowledge(&qp->mutex, &qp->cond, &qp->events_completed, 1);
		break;
	case SUBJECT_SRQ:
		acknowledge(&srq->mutex, &srq->cond, &srq->events_completed, 1);
		break;
	case SUBJECT_WQ:
		acknowledge(&wq->mutex, &wq->cond, &wq->events_completed, 1);
		break;
	case SUBJECT_PORT:
	case SUBJECT_DEVICE:
		break;
	}
}
