#define _GNU_SOURCE
#include "fake_rdmacm.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

enum { RULES = 64, COUNTERS = 32 };

struct queued {
	struct rdma_cm_event event;
	struct queued *next;
};

struct channel {
	struct rdma_event_channel public;
	struct queued *first;
	struct channel *next;
};

static struct rule {
	const char *function;
	int octet, error, event, status;
} rules[RULES];

static struct counter {
	const char *function;
	int calls;
} counters[COUNTERS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int rule_count, counter_count;
static bool active;
static struct channel *channels;
static struct ibv_device device;
static struct ibv_context context;

#define REAL(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

void fake_rdmacm_begin(const char *name)
{
	pthread_mutex_lock(&lock);
	rule_count = counter_count = 0;
	strncpy(device.name, name, sizeof(device.name) - 1);
	device.transport_type = IBV_TRANSPORT_IB;
	context.device = &device;
	active = true;
	pthread_mutex_unlock(&lock);
}

void fake_rdmacm_end(void)
{
	active = false;
}

void fake_rdmacm_use_iwarp(void)
{
	device.transport_type = IBV_TRANSPORT_IWARP;
}

void fake_rdmacm_rule(const char *function, int octet, int error, int event, int status)
{
	pthread_mutex_lock(&lock);
	if (rule_count == RULES)
		abort();
	rules[rule_count++] = (struct rule){ strdup(function), octet, error, event, status };
	pthread_mutex_unlock(&lock);
}

static struct counter *counter(const char *function)
{
	for (int index = 0; index < counter_count; index++)
		if (strcmp(counters[index].function, function) == 0)
			return &counters[index];
	if (counter_count == COUNTERS)
		abort();
	counters[counter_count] = (struct counter){ strdup(function), 0 };
	return &counters[counter_count++];
}

int fake_rdmacm_calls(const char *function)
{
	pthread_mutex_lock(&lock);
	int calls = counter(function)->calls;
	pthread_mutex_unlock(&lock);
	return calls;
}

static bool is_fake(struct rdma_event_channel *channel)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (struct channel *one = channels; one; one = one->next)
		found |= &one->public == channel;
	pthread_mutex_unlock(&lock);
	return found;
}

static struct rdma_cm_id *new_id(struct rdma_event_channel *channel, enum rdma_port_space space)
{
	struct rdma_cm_id *id = calloc(1, sizeof(*id));

	id->channel = channel;
	id->ps = space;
	return id;
}

/* Called with the lock held. */
static void add_event(struct rdma_cm_id *id, int kind, int status)
{
	struct channel *channel = (struct channel *)id->channel;
	struct queued **end = &channel->first;
	struct queued *queued = calloc(1, sizeof(*queued));
	uint64_t one = 1;

	queued->event.id = id;
	queued->event.event = (enum rdma_cm_event_type)kind;
	queued->event.status = status;
	if (kind == RDMA_CM_EVENT_CONNECT_REQUEST) {
		queued->event.listen_id = id;
		queued->event.id = new_id(id->channel, id->ps);
		queued->event.id->verbs = &context;
		queued->event.id->port_num = 1;
	}
	while (*end)
		end = &(*end)->next;
	*end = queued;
	if (write(channel->public.fd, &one, sizeof(one)) < 0)
		abort();
}

static int last_octet(const struct sockaddr *address)
{
	if (!address)
		return -1;
	if (address->sa_family == AF_INET)
		return (int)(ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) & 0xff);
	return ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr[15];
}

/* Applies the rules: returns 0, or -1 with errno. */
static int follow(const char *function, struct rdma_cm_id *id, const struct sockaddr *address)
{
	int answer = 0, error = 0;

	pthread_mutex_lock(&lock);
	counter(function)->calls++;
	for (int index = rule_count - 1; index >= 0; index--) {
		struct rule *rule = &rules[index];

		if (strcmp(rule->function, function) != 0 || (rule->octet >= 0 && rule->octet != last_octet(address)))
			continue;
		answer = rule->error != 0 ? -1 : 0;
		error = rule->error;
		if (rule->event != FAKE_RDMACM_SILENCE && id)
			add_event(id, rule->event, rule->status);
		break;
	}
	pthread_mutex_unlock(&lock);
	if (error > 0)
		errno = error;
	return answer;
}

static void bind_to(struct rdma_cm_id *id, struct sockaddr_storage *place, const struct sockaddr *address)
{
	size_t size = address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	memcpy(place, address, size);
	id->verbs = &context;
	id->port_num = 1;
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	if (!active)
		return REAL(rdma_create_event_channel)();
	if (follow("rdma_create_event_channel", NULL, NULL) != 0)
		return NULL;

	struct channel *channel = calloc(1, sizeof(*channel));

	channel->public.fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_lock(&lock);
	channel->next = channels;
	channels = channel;
	pthread_mutex_unlock(&lock);
	return &channel->public;
}

/* Its memory is not freed, so that a late call is distinguished from one on a channel of librdmacm. */
void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
	if (!is_fake(channel)) {
		REAL(rdma_destroy_event_channel)(channel);
		return;
	}
	close(channel->fd);
	channel->fd = -1;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *user, enum rdma_port_space space)
{
	if (!is_fake(channel))
		return REAL(rdma_create_id)(channel, id, user, space);
	if (follow("rdma_create_id", NULL, NULL) != 0)
		return -1;
	*id = new_id(channel, space);
	return 0;
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
	if (!is_fake(id->channel))
		return REAL(rdma_destroy_id)(id);
	if (follow("rdma_destroy_id", NULL, NULL) != 0)
		return -1;
	free(id);
	return 0;
}

int rdma_migrate_id(struct rdma_cm_id *id, struct rdma_event_channel *channel)
{
	if (!is_fake(id->channel))
		return REAL(rdma_migrate_id)(id, channel);
	if (follow("rdma_migrate_id", id, NULL) != 0)
		return -1;
	id->channel = channel;
	return 0;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
	if (!is_fake(id->channel))
		return REAL(rdma_bind_addr)(id, address);
	if (follow("rdma_bind_addr", id, address) != 0)
		return -1;
	bind_to(id, &id->route.addr.src_storage, address);
	return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *source, struct sockaddr *address, int timeout)
{
	if (!is_fake(id->channel))
		return REAL(rdma_resolve_addr)(id, source, address, timeout);
	if (follow("rdma_resolve_addr", id, address) != 0)
		return -1;
	bind_to(id, &id->route.addr.dst_storage, address);
	return 0;
}

int rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *parameters)
{
	if (!is_fake(id->channel))
		return REAL(rdma_connect)(id, parameters);
	int answer = follow("rdma_connect", id, rdma_get_peer_addr(id));

	/* siw waits in the system call. pause(2) is interrupted in the same way. */
	if (answer != 0 && errno == FAKE_RDMACM_BLOCKS)
		pause();
	return answer;
}

int rdma_accept(struct rdma_cm_id *id, struct rdma_conn_param *parameters)
{
	return is_fake(id->channel) ? follow("rdma_accept", id, NULL) : REAL(rdma_accept)(id, parameters);
}

int rdma_resolve_route(struct rdma_cm_id *id, int timeout)
{
	return is_fake(id->channel) ? follow("rdma_resolve_route", id, NULL) : REAL(rdma_resolve_route)(id, timeout);
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	return is_fake(id->channel) ? follow("rdma_listen", id, NULL) : REAL(rdma_listen)(id, backlog);
}

int rdma_establish(struct rdma_cm_id *id)
{
	return is_fake(id->channel) ? follow("rdma_establish", id, NULL) : REAL(rdma_establish)(id);
}

int rdma_reject(struct rdma_cm_id *id, const void *data, uint8_t count)
{
	return is_fake(id->channel) ? follow("rdma_reject", id, NULL) : REAL(rdma_reject)(id, data, count);
}

int rdma_disconnect(struct rdma_cm_id *id)
{
	if (!is_fake(id->channel))
		return REAL(rdma_disconnect)(id);
	/* As in the kernel: both peers have disconnected, and no other event follows. */
	if (id->context) {
		errno = EINVAL;
		return -1;
	}
	if (follow("rdma_disconnect", id, NULL) != 0)
		return -1;
	id->context = id;
	return 0;
}

int rdma_notify(struct rdma_cm_id *id, enum ibv_event_type event)
{
	return is_fake(id->channel) ? follow("rdma_notify", id, NULL) : REAL(rdma_notify)(id, event);
}

int rdma_set_option(struct rdma_cm_id *id, int level, int option, void *value, size_t size)
{
	return is_fake(id->channel) ? follow("rdma_set_option", id, NULL)
				    : REAL(rdma_set_option)(id, level, option, value, size);
}

int rdma_join_multicast(struct rdma_cm_id *id, struct sockaddr *address, void *user)
{
	return is_fake(id->channel) ? follow("rdma_join_multicast", id, address)
				    : REAL(rdma_join_multicast)(id, address, user);
}

int rdma_join_multicast_ex(struct rdma_cm_id *id, struct rdma_cm_join_mc_attr_ex *attributes, void *user)
{
	return is_fake(id->channel) ? follow("rdma_join_multicast_ex", id, attributes->addr)
				    : REAL(rdma_join_multicast_ex)(id, attributes, user);
}

int rdma_leave_multicast(struct rdma_cm_id *id, struct sockaddr *address)
{
	return is_fake(id->channel) ? follow("rdma_leave_multicast", id, address)
				    : REAL(rdma_leave_multicast)(id, address);
}

/* The attributes of a queue pair on RoCE that the kernel returns, without the path. */
int rdma_init_qp_attr(struct rdma_cm_id *id, struct ibv_qp_attr *attributes, int *mask)
{
	if (!is_fake(id->channel))
		return REAL(rdma_init_qp_attr)(id, attributes, mask);
	*mask = IBV_QP_STATE;
	if (attributes->qp_state == IBV_QPS_INIT) {
		attributes->port_num = 1;
		*mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
	}
	return follow("rdma_init_qp_attr", NULL, NULL);
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
	uint64_t one;

	if (!is_fake(channel))
		return REAL(rdma_get_cm_event)(channel, event);
	if (follow("rdma_get_cm_event", NULL, NULL) != 0)
		return -1;
	if (read(channel->fd, &one, sizeof(one)) < 0)
		return -1;
	pthread_mutex_lock(&lock);

	struct queued *queued = ((struct channel *)channel)->first;

	((struct channel *)channel)->first = queued->next;
	pthread_mutex_unlock(&lock);
	*event = &queued->event;
	return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	if (!is_fake(event->id->channel))
		return REAL(rdma_ack_cm_event)(event);
	free(event);
	return 0;
}
