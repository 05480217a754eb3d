/*
 * ctest.h - a loopback device in userspace, a minimal provider with a data path
 *
 * Queue pairs of one process address each other by QPN: a send is copied directly to the receiver's memory,
 * in the thread that posts it. No message is lost, there are no timers, and every run is the same.
 *
 * Locks. `ctest_fabric` guards the state that queue pairs share: tables, rings, completion queues. A thread
 * holds the `post_lock` of a queue pair from wr_start to wr_complete, and the `poll_lock` of a completion queue
 * from start_poll to end_poll; both are acquired before `ctest_fabric`. The lock of an event queue is acquired last.
 */
#ifndef CTEST_H
#define CTEST_H

#include <stdbool.h>
#include <stdlib.h>

#include <rdma_provider.h>

enum {
	CTEST_MAX_DEVICES = 64,
	CTEST_PORT = 1,
	CTEST_GIDS = 8,
	CTEST_PKEY = 0xffff,
	CTEST_MTU = 1024, /* bytes in one datagram */
	CTEST_GRH = 40,   /* bytes of the GRH area of a UD receive */
	CTEST_MAX_MESSAGE = 1 << 30,
	CTEST_MAX_QP = 1024,
	CTEST_MAX_MR = 4096,
	CTEST_MAX_WR = 4096,
	CTEST_MAX_SGE = 8,
	CTEST_MAX_INLINE = 256,
	CTEST_MAX_CQE = 1 << 16,
};

/* --- event.c: queues of events that are read from a descriptor --- */

struct ctest_event {
	void *subject; /* the object, or the number of a port */
	int code;      /* enum ibv_event_type, 0 for a completion event */
};

struct ctest_queue {
	pthread_mutex_t lock;
	int fd; /* an eventfd; readable exactly when `count` is not 0 or the device has failed */
	bool failed;
	struct ctest_event *events;
	size_t capacity, count;
};

int ctest_queue_init(struct ctest_queue *queue);
void ctest_queue_fini(struct ctest_queue *queue);
/* Reserves room for ctest_queue_put: each object reserves the most events that it can have unread. */
int ctest_queue_reserve(struct ctest_queue *queue, size_t events);
void ctest_queue_release(struct ctest_queue *queue, size_t events);
/* Queues an event, unless an equal event is already queued. */
void ctest_queue_put(struct ctest_queue *queue, void *subject, int code);
/* Drops the unread events of an object. */
void ctest_queue_drop(struct ctest_queue *queue, const void *subject);
/* Makes the descriptor readable for good; reading an empty queue returns EIO. */
void ctest_queue_fail(struct ctest_queue *queue);

/* --- the objects: the struct of verbs.h first, the provider's own members after it --- */

struct ctest_channel {
	struct ibv_comp_channel verbs;
	char room[RDMA_OBJECT_ROOM];
	struct ctest_queue queue;
	struct ctest_channel *next; /* in the list of all channels of the context */
};

struct ctest_context {
	struct verbs_context verbs;
	struct ctest_queue events;
	struct ctest_channel *channels;
	union ibv_gid gids[CTEST_GIDS];
	__be64 guid;
	bool failed; /* the device has failed; guarded by ctest_fabric */
};

struct ctest_pd {
	struct ibv_pd verbs;
	char room[RDMA_OBJECT_ROOM];
	unsigned int users;
};

struct ctest_mr {
	struct ibv_mr verbs;
	char room[RDMA_OBJECT_ROOM];
	uint64_t iova;
	unsigned int access;
};

struct ctest_ah {
	struct ibv_ah verbs;
	char room[RDMA_OBJECT_ROOM];
	struct ibv_ah_attr attr;
};

enum ctest_arm { CTEST_ARM_NONE, CTEST_ARM_ANY, CTEST_ARM_SOLICITED };

struct ctest_cq {
	struct ibv_cq_ex verbs;
	char room[RDMA_OBJECT_ROOM];
	pthread_mutex_t poll_lock;
	struct ibv_wc current; /* the current completion, between start_poll and end_poll */
	struct ibv_wc *ring;
	uint32_t capacity, head, count;
	enum ctest_arm arm;
	bool overrun;
	unsigned int users;
	uint32_t comp_read, async_read; /* guarded by the locks of the queues they were read from */
};

struct ctest_recv {
	uint64_t wr_id;
	int num_sge;
	struct ibv_sge sge[CTEST_MAX_SGE];
};

/* The receive queue of a queue pair, or a shared receive queue. */
struct ctest_recv_ring {
	struct ctest_recv *slots;
	uint32_t capacity, max_sge, head, count;
};

struct ctest_srq {
	struct ibv_srq verbs;
	char room[RDMA_OBJECT_ROOM];
	struct ctest_recv_ring ring;
	uint32_t limit;
	unsigned int users;
	uint32_t async_read;
};

struct ctest_send {
	uint64_t wr_id;
	enum ibv_wr_opcode opcode;
	unsigned int flags;
	__be32 imm;
	uint32_t rkey;
	uint64_t remote_addr;
	uint64_t compare_add, swap;
	struct ibv_ah_attr ah; /* a copy: the address handle may be destroyed while the request is outstanding */
	bool has_ah;
	uint32_t remote_qpn, remote_qkey;
	uint32_t length;
	int num_sge;
	struct ibv_sge sge[CTEST_MAX_SGE];
	uint8_t inline_data[CTEST_MAX_INLINE]; /* holds the message if IBV_SEND_INLINE is set */
};

struct ctest_qp {
	struct ibv_qp_ex verbs;
	char room[RDMA_OBJECT_ROOM];
	struct ibv_qp_init_attr_ex init;
	struct ibv_qp_attr attr;
	pthread_mutex_t post_lock;
	/* The send ring. [tail - count, tail) are posted and outstanding, [tail, tail + staged) are being built.
	 * `count` is guarded by the fabric lock, `staged` and `build_error` by the post_lock. Writing `tail` requires
	 * both locks, reading it requires either. */
	struct ctest_send *sends;
	uint32_t capacity, tail, count, staged;
	int build_error;
	bool waits; /* the oldest send request waits for a receive at the peer */
	uint32_t async_read;
	struct ctest_recv_ring recv;
	enum ibv_wc_status forced; /* set by a test: the status of the next send, 0 for the actual one */
};

static inline struct ctest_context *ctest_context(struct ibv_context *context)
{
	return (struct ctest_context *)verbs_get_ctx(context);
}

static inline struct ctest_channel *ctest_channel(struct ibv_comp_channel *channel)
{
	return (struct ctest_channel *)channel;
}

static inline struct ctest_pd *ctest_pd(struct ibv_pd *pd)
{
	return (struct ctest_pd *)pd;
}

static inline struct ctest_cq *ctest_cq(struct ibv_cq *cq)
{
	return (struct ctest_cq *)cq;
}

static inline struct ctest_srq *ctest_srq(struct ibv_srq *srq)
{
	return (struct ctest_srq *)srq;
}

static inline struct ctest_qp *ctest_qp(struct ibv_qp *qp)
{
	return (struct ctest_qp *)qp;
}

/* --- device.c --- */

extern pthread_mutex_t ctest_fabric;

/* Sets errno and returns NULL, for functions that create an object. */
static inline void *ctest_fail(int error)
{
	errno = error;
	return NULL;
}

static inline void ctest_lock(void)
{
	pthread_mutex_lock(&ctest_fabric);
}

static inline void ctest_unlock(void)
{
	pthread_mutex_unlock(&ctest_fabric);
}

/* Adds `by` to a count of users. The caller checks whether the device has failed. */
static inline void ctest_count(unsigned int *users, int by)
{
	ctest_lock();
	*users += (unsigned int)by;
	ctest_unlock();
}

bool ctest_has_failed(struct ibv_context *context);
/* Makes the device fail: moves every queue pair to the error state, wakes all waiting threads, and raises
 * IBV_EVENT_DEVICE_FATAL. Fabric lock held. */
void ctest_device_fatal(struct ctest_context *context);

int ctest_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			  struct ibv_device_attr_ex *attr, size_t attr_size);
int ctest_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t attr_size);
int ctest_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
		       uint32_t flags, size_t entry_size);
ssize_t ctest_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries,
			      uint32_t flags, size_t entry_size);
int ctest_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey);
void ctest_fill_gids(struct ctest_context *context);
bool ctest_has_gid(const struct ctest_context *context, const union ibv_gid *gid);
bool ctest_ah_attr_valid(const struct ibv_ah_attr *attr);

/* --- memory.c --- */

struct ibv_pd *ctest_alloc_pd(struct ibv_context *context);
int ctest_dealloc_pd(struct ibv_pd *pd);
struct ibv_mr *ctest_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access);
int ctest_dereg_mr(struct ibv_mr *mr);
struct ibv_ah *ctest_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr);
int ctest_destroy_ah(struct ibv_ah *ah);
/* Returns the memory of [address, address + length) of an lkey or rkey, or NULL if the access is not allowed. Fabric
 * lock held. */
void *ctest_translate(struct ibv_pd *pd, uint32_t key, uint64_t address, uint32_t length, unsigned int access);

/* --- event.c --- */

struct ibv_comp_channel *ctest_create_comp_channel(struct ibv_context *context);
int ctest_destroy_comp_channel(struct ibv_comp_channel *channel);
int ctest_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq);
int ctest_get_async_event(struct ibv_context *context, struct ibv_async_event *event);
/* Raises an asynchronous event of `subject`: a CQ, QP or SRQ, or the number of a port. */
void ctest_raise(struct ibv_context *context, enum ibv_event_type type, void *subject);

/* --- cq.c --- */

struct ibv_cq *ctest_create_cq(struct ibv_context *context, int cqe, void *cq_context,
			       struct ibv_comp_channel *channel, int comp_vector);
struct ibv_cq_ex *ctest_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);
int ctest_destroy_cq(struct ibv_cq *cq);
int ctest_poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *wc);
int ctest_req_notify_cq(struct ibv_cq *cq, int solicited_only);
/* Fabric lock held. */
void ctest_complete(struct ibv_cq *cq, const struct ibv_wc *wc, bool solicited);

/* --- receive.c --- */

int ctest_ring_init(struct ctest_recv_ring *ring, uint32_t max_wr, uint32_t max_sge);
int ctest_ring_post(struct ctest_recv_ring *ring, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
struct ibv_srq *ctest_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
int ctest_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask);
int ctest_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr);
int ctest_destroy_srq(struct ibv_srq *srq);
int ctest_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int ctest_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
/* Consumes the next receive of a queue pair, from its SRQ if it has one. Returns false if there is none. Fabric lock
 * held. */
bool ctest_consume_recv(struct ctest_qp *qp, struct ctest_recv *recv);

/* --- qp.c --- */

struct ibv_qp *ctest_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
struct ibv_qp_ex *ctest_qp_to_qp_ex(struct ibv_qp *qp);
int ctest_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
int ctest_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init);
int ctest_destroy_qp(struct ibv_qp *qp);
int ctest_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
int ctest_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
/* Fabric lock held. */
struct ctest_qp *ctest_find_qp(uint32_t number);
struct ctest_qp *ctest_next_qp(const struct ctest_qp *after);
void ctest_enter_error(struct ctest_qp *qp);

/* --- send.c --- */

int ctest_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
uint64_t ctest_send_ops(void);
/* Sets the functions of struct ibv_qp_ex for the flags in `send_ops`. */
void ctest_set_builders(struct ibv_qp_ex *qp, uint64_t send_ops);

/* --- transfer.c --- */

/* Executes the requests of the send queue, until it is empty or the peer has no receive. Fabric lock held. */
void ctest_progress(struct ctest_qp *qp);
/* Executes the requests of all queue pairs that wait for a receive. Fabric lock held. */
void ctest_progress_all(void);
/* Completes all posted requests with IBV_WC_WR_FLUSH_ERR. Fabric lock held. */
void ctest_flush(struct ctest_qp *qp);

#endif
