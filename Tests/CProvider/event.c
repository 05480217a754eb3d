/* event.c - completion channels and asynchronous events: chapter 5 of the header */
#include "ctest.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int ctest_queue_init(struct ctest_queue *queue)
{
	queue->fd = eventfd(0, EFD_CLOEXEC);
	if (queue->fd < 0)
		return errno;
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

void ctest_queue_fini(struct ctest_queue *queue)
{
	pthread_mutex_destroy(&queue->lock);
	free(queue->events);
	close(queue->fd);
}

int ctest_queue_reserve(struct ctest_queue *queue, size_t events)
{
	struct ctest_event *larger;
	int error = 0;

	pthread_mutex_lock(&queue->lock);
	larger = realloc(queue->events, (queue->capacity + events) * sizeof(*larger));
	if (larger) {
		queue->events = larger;
		queue->capacity += events;
	} else {
		error = ENOMEM;
	}
	pthread_mutex_unlock(&queue->lock);
	return error;
}

void ctest_queue_release(struct ctest_queue *queue, size_t events)
{
	pthread_mutex_lock(&queue->lock);
	queue->capacity -= events;
	pthread_mutex_unlock(&queue->lock);
}

/* Keep the descriptor readable exactly while events are queued. An eventfd with this value neither blocks nor fails. */
static void make_readable(struct ctest_queue *queue)
{
	uint64_t one = 1;

	if (write(queue->fd, &one, sizeof(one)) < 0)
		abort();
}

static void make_unreadable(struct ctest_queue *queue)
{
	uint64_t value;

	if (queue->failed)
		return;
	if (read(queue->fd, &value, sizeof(value)) < 0)
		abort();
}

void ctest_queue_put(struct ctest_queue *queue, void *subject, int code)
{
	size_t i;

	pthread_mutex_lock(&queue->lock);
	for (i = 0; i < queue->count; i++)
		if (queue->events[i].subject == subject && queue->events[i].code == code)
			break;
	if (i == queue->count && i < queue->capacity) {
		queue->events[i] = (struct ctest_event){ subject, code };
		if (queue->count++ == 0)
			make_readable(queue);
	}
	pthread_mutex_unlock(&queue->lock);
}

void ctest_queue_drop(struct ctest_queue *queue, const void *subject)
{
	size_t kept = 0, i;

	pthread_mutex_lock(&queue->lock);
	for (i = 0; i < queue->count; i++)
		if (queue->events[i].subject != subject)
			queue->events[kept++] = queue->events[i];
	if (queue->count && !kept)
		make_unreadable(queue);
	queue->count = kept;
	pthread_mutex_unlock(&queue->lock);
}

void ctest_queue_fail(struct ctest_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	if (!queue->failed && queue->count == 0)
		make_readable(queue);
	queue->failed = true;
	pthread_mutex_unlock(&queue->lock);
}

/* Waits until the descriptor is readable; returns EAGAIN if it has O_NONBLOCK. After 0 the caller checks the queue. */
static int wait_readable(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	if (fcntl(fd, F_GETFL) & O_NONBLOCK)
		return EAGAIN;
	return poll(&one, 1, -1) < 0 ? errno : 0;
}

/* Removes the oldest event. On success the queue's lock is held, so that the caller can count the event as read. */
static int remove_oldest(struct ctest_queue *queue, struct ctest_event *event)
{
	int error;

	for (;;) {
		pthread_mutex_lock(&queue->lock);
		if (queue->count)
			break;
		error = queue->failed ? EIO : 0;
		pthread_mutex_unlock(&queue->lock);
		if (!error)
			error = wait_readable(queue->fd);
		if (error)
			return error;
	}
	*event = queue->events[0];
	memmove(queue->events, queue->events + 1, --queue->count * sizeof(*event));
	if (queue->count == 0)
		make_unreadable(queue);
	return 0;
}

struct ibv_comp_channel *ctest_create_comp_channel(struct ibv_context *context)
{
	struct ctest_context *owner = ctest_context(context);
	struct ctest_channel *channel;
	int error;

	if (ctest_has_failed(context))
		return ctest_fail(EIO);
	channel = calloc(1, sizeof(*channel));
	if (!channel)
		return ctest_fail(ENOMEM);
	error = ctest_queue_init(&channel->queue);
	if (error) {
		free(channel);
		return ctest_fail(error);
	}
	rdma_init_comp_channel(&channel->verbs, context, channel->queue.fd);
	ctest_lock();
	channel->next = owner->channels;
	owner->channels = channel;
	if (owner->failed)
		ctest_queue_fail(&channel->queue);
	ctest_unlock();
	return &channel->verbs;
}

int ctest_destroy_comp_channel(struct ibv_comp_channel *verbs)
{
	struct ctest_channel *channel = ctest_channel(verbs), **link;

	if (rdma_comp_channel_busy(verbs))
		return EBUSY;
	ctest_lock();
	link = &ctest_context(verbs->context)->channels;
	while (*link != channel)
		link = &(*link)->next;
	*link = channel->next;
	ctest_unlock();
	ctest_queue_fini(&channel->queue);
	free(channel);
	return 0;
}

int ctest_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq)
{
	struct ctest_queue *queue = &ctest_channel(channel)->queue;
	struct ctest_event event;
	int error = remove_oldest(queue, &event);

	if (error)
		return error;
	*cq = event.subject;
	ctest_cq(*cq)->comp_read++;
	pthread_mutex_unlock(&queue->lock);
	return 0;
}

/* Sets `event->element` for the event type, and counts the event as read for its object. */
static void describe(struct ibv_async_event *event, void *subject)
{
	switch (event->event_type) {
	case IBV_EVENT_CQ_ERR:
		event->element.cq = subject;
		ctest_cq(subject)->async_read++;
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		event->element.qp = subject;
		ctest_qp(subject)->async_read++;
		break;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		event->element.srq = subject;
		ctest_srq(subject)->async_read++;
		break;
	default:
		event->element.port_num = (int)(uintptr_t)subject;
		break;
	}
}

int ctest_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	struct ctest_queue *queue = &ctest_context(context)->events;
	struct ctest_event next;
	int error = remove_oldest(queue, &next);

	if (error)
		return error;
	memset(event, 0, sizeof(*event));
	event->event_type = (enum ibv_event_type)next.code;
	describe(event, next.subject);
	pthread_mutex_unlock(&queue->lock);
	return 0;
}

void ctest_raise(struct ibv_context *context, enum ibv_event_type type, void *subject)
{
	ctest_queue_put(&ctest_context(context)->events, subject, (int)type);
}
