/*
 * crxe.h - a complete provider in C for a kernel device: the kernel's rdma_rxe
 *
 * The control path calls the kernel through struct rdma_kernel_ops, which the core hands over. The data path
 * reads and writes queues in memory that the kernel shares (struct rxe_queue_buf of <rdma/rdma_user_rxe.h>).
 *
 * Every object is the struct of verbs.h, RDMA_OBJECT_ROOM zeroed bytes, and the provider's own members.
 */
#ifndef CRXE_H
#define CRXE_H

#include <stdbool.h>
#include <stdlib.h>

#include <rdma_provider.h>

#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_rxe.h>

/* The core, and its uverbs commands: set by the entry point, constant afterwards. */
extern const struct rdma_core *crxe_core;
extern const struct rdma_kernel_ops *crxe_kernel;

/* --- queues that are shared with the kernel: queue.c --- */

/* A mapped queue. Its geometry is read once, when it is mapped, and indices are masked, so that every access lies within
 * the mapping, whatever the shared memory contains later. Empty: both indices are equal. Full: one more entry
 * would make them equal. */
struct crxe_queue {
	struct rxe_queue_buf *buf; /* NULL: no queue */
	size_t size;		   /* of the mapping */
	uint32_t mask;		   /* number of entries - 1 */
	uint32_t shift;		   /* base-2 logarithm of the size of an entry */
};

/* Maps a queue whose entries have at least `least` bytes. Returns 0, EPROTO for memory with another layout, or the errno
 * value of mmap(2). */
int crxe_map(struct rdma_kernel *kernel, const struct mminfo *info, size_t least, struct crxe_queue *queue);
/* Unmaps a queue, if there is one. */
void crxe_unmap(struct crxe_queue *queue);

static inline void *crxe_entry(const struct crxe_queue *queue, uint32_t index)
{
	return queue->buf->data + ((size_t)(index & queue->mask) << queue->shift);
}

static inline size_t crxe_entry_size(const struct crxe_queue *queue)
{
	return (size_t)1 << queue->shift;
}

/* The index that this process writes. */
static inline uint32_t crxe_own(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_RELAXED);
}

/* The index that the kernel writes: what it wrote before is visible. */
static inline uint32_t crxe_theirs(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Publishes an index, and what was written before. */
static inline void crxe_publish(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

/* --- objects --- */

struct crxe_context {
	struct verbs_context verbs;
	struct rdma_kernel *kernel;
	bool failed; /* IBV_EVENT_DEVICE_FATAL was read; atomic */
};

/* A protection domain, or a parent domain. */
struct crxe_pd {
	struct ibv_pd verbs;
	char room[RDMA_OBJECT_ROOM];
	struct crxe_pd *parent; /* the protection domain of a parent domain */
	bool single_threaded;	/* a parent domain with a thread domain */
	unsigned int users;	/* objects made with it; atomic */
};

struct crxe_td {
	struct ibv_td verbs;
	char room[RDMA_OBJECT_ROOM];
};

struct crxe_mr {
	struct ibv_mr verbs;
	char room[RDMA_OBJECT_ROOM];
};

struct crxe_mw {
	struct ibv_mw verbs;
	char room[RDMA_OBJECT_ROOM];
};

struct crxe_ah {
	struct ibv_ah verbs;
	char room[RDMA_OBJECT_ROOM];
	uint32_t number; /* in a WQE: rxe_create_ah_resp.ah_num */
};

struct crxe_channel {
	struct ibv_comp_channel verbs;
	char room[RDMA_OBJECT_ROOM];
};

/* A lock that is skipped where one thread at a time uses the queue. */
struct crxe_lock {
	pthread_mutex_t mutex;
	bool skipped;
};

struct crxe_cq {
	struct ibv_cq_ex verbs;
	char room[RDMA_OBJECT_ROOM];
	struct crxe_lock lock; /* held from start_poll to end_poll */
	/* The thread with an open batch (crxe_self), or 0; atomic. */
	uintptr_t batch;
	struct crxe_queue queue;
	/* Guarded by `lock`: the current completion of the batch, NULL when there is none. */
	const struct ibv_wc *current;
};

/* The receive queue of a queue pair, or a shared receive queue. */
struct crxe_receives {
	struct crxe_lock lock;
	struct crxe_queue queue;
	uint32_t max_sge;
};

struct crxe_srq {
	struct ibv_srq verbs;
	char room[RDMA_OBJECT_ROOM];
	struct crxe_receives receives;
};

/* The doorbell of a send queue: a POST_SEND without requests, written to the uverbs node. The fields after the header are
 * those of struct ib_uverbs_post_send, which ends with an array and cannot be a member. */
struct crxe_doorbell {
	struct ib_uverbs_cmd_hdr header;
	uint64_t response;
	uint32_t qp_handle;
	uint32_t wr_count;
	uint32_t sge_count;
	uint32_t wqe_size;
};

_Static_assert(sizeof(struct crxe_doorbell) == sizeof(struct ib_uverbs_cmd_hdr) + sizeof(struct ib_uverbs_post_send),
	       "the doorbell has the layout of POST_SEND");

struct crxe_qp {
	struct ibv_qp_ex verbs;
	char room[RDMA_OBJECT_ROOM];
	struct crxe_lock lock; /* of the send queue; held from wr_start to wr_complete */
	struct crxe_queue sends;
	uint32_t max_sge, max_inline;
	uint32_t opcodes; /* bit n: opcode n of enum ibv_wr_opcode may be posted */
	uint32_t ssn;	  /* of the next WQE */
	/* Between wr_start and wr_complete: the WQE of the latest request, the index of the next one, the first error. */
	struct rxe_send_wqe *wqe;
	uint32_t next;
	int error;
	struct crxe_doorbell doorbell;
	struct ib_uverbs_post_send_resp response;
	struct crxe_receives receives;
};

static inline struct crxe_context *crxe_context(struct ibv_context *context)
{
	return (struct crxe_context *)verbs_get_ctx(context);
}

static inline struct rdma_kernel *crxe_node(struct ibv_context *context)
{
	return crxe_context(context)->kernel;
}

static inline struct crxe_pd *crxe_pd(struct ibv_pd *pd)
{
	return (struct crxe_pd *)pd;
}

static inline struct crxe_cq *crxe_cq(struct ibv_cq *cq)
{
	return (struct crxe_cq *)cq;
}

static inline struct crxe_srq *crxe_srq(struct ibv_srq *srq)
{
	return (struct crxe_srq *)srq;
}

static inline struct crxe_qp *crxe_qp(struct ibv_qp *qp)
{
	return (struct crxe_qp *)qp;
}

static inline bool crxe_failed(struct ibv_context *context)
{
	return __atomic_load_n(&crxe_context(context)->failed, __ATOMIC_RELAXED);
}

static inline void crxe_use(struct ibv_pd *pd)
{
	__atomic_fetch_add(&crxe_pd(pd)->users, 1, __ATOMIC_RELAXED);
}

static inline void crxe_unuse(struct ibv_pd *pd)
{
	__atomic_fetch_sub(&crxe_pd(pd)->users, 1, __ATOMIC_RELAXED);
}

static inline void crxe_lock(struct crxe_lock *lock)
{
	if (!lock->skipped)
		pthread_mutex_lock(&lock->mutex);
}

static inline void crxe_unlock(struct crxe_lock *lock)
{
	if (!lock->skipped)
		pthread_mutex_unlock(&lock->mutex);
}

void crxe_lock_init(struct crxe_lock *lock, bool skipped);
void crxe_lock_fini(struct crxe_lock *lock);

/* Explains an errno value to the user, and returns it; the second form sets errno and returns NULL. */
int crxe_refuse(int error, const char *why);
void *crxe_fail(int error, const char *why);

/* --- the functions of the tables --- */

/* memory.c */
struct ibv_pd *crxe_alloc_pd(struct ibv_context *context);
int crxe_dealloc_pd(struct ibv_pd *pd);
struct ibv_pd *crxe_alloc_parent_domain(struct ibv_context *context, struct ibv_parent_domain_init_attr *attr);
struct ibv_td *crxe_alloc_td(struct ibv_context *context, struct ibv_td_init_attr *attr);
int crxe_dealloc_td(struct ibv_td *td);
struct ibv_mr *crxe_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access);
int crxe_dereg_mr(struct ibv_mr *mr);
struct ibv_mw *crxe_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type);
int crxe_dealloc_mw(struct ibv_mw *mw);
struct ibv_ah *crxe_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr);
int crxe_destroy_ah(struct ibv_ah *ah);
int crxe_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
int crxe_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
struct ibv_comp_channel *crxe_create_comp_channel(struct ibv_context *context);
int crxe_destroy_comp_channel(struct ibv_comp_channel *channel);

/* cq.c, poll.c */
struct ibv_cq *crxe_create_cq(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			      int comp_vector);
struct ibv_cq_ex *crxe_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);
int crxe_resize_cq(struct ibv_cq *cq, int cqe);
int crxe_destroy_cq(struct ibv_cq *cq);
int crxe_req_notify_cq(struct ibv_cq *cq, int solicited_only);
int crxe_poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *wc);
void crxe_fill_polling(struct ibv_cq_ex *cq);
bool crxe_in_batch(struct crxe_cq *cq);

/* receive.c */
int crxe_attach_receives(struct crxe_receives *receives, uint32_t max_sge);
struct ibv_srq *crxe_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
int crxe_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask);
int crxe_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr);
int crxe_destroy_srq(struct ibv_srq *srq);
int crxe_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);
int crxe_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);

/* qp.c */
struct ibv_qp *crxe_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
struct ibv_qp_ex *crxe_qp_to_qp_ex(struct ibv_qp *qp);
int crxe_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
int crxe_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init);
int crxe_destroy_qp(struct ibv_qp *qp);

/* send.c, builders.c */
uint32_t crxe_opcodes(enum ibv_qp_type type);
bool crxe_may_be_inline(enum ibv_wr_opcode opcode);
/* Whether the state allows posting to the send queue: from RTS on. In the error state, requests are flushed. */
static inline bool crxe_may_send(const struct ibv_qp *qp)
{
	return qp->state >= IBV_QPS_RTS && qp->state <= IBV_QPS_ERR;
}
/* Begins a WQE: everything but its operation and data is set. */
void crxe_begin_wqe(struct crxe_qp *qp, struct rxe_send_wqe *wqe, uint64_t wr_id, enum ibv_wr_opcode opcode,
		    unsigned int flags);
/* Copies a scatter/gather list. Returns 0, or EINVAL where the sum of the lengths exceeds 32 bits. */
int crxe_copy_sges(struct rxe_dma_info *dma, const struct ibv_sge *list, uint32_t count);
void crxe_write_binding(struct rxe_send_wqe *wqe, const struct ibv_mw *mw, uint32_t rkey,
			const struct ibv_mw_bind_info *info);
/* Makes the WQEs from the producer index to `end` visible, releases the send queue's lock, and rings the doorbell. */
int crxe_commit(struct crxe_qp *qp, uint32_t end);
int crxe_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr);
int crxe_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind);
void crxe_fill_builders(struct ibv_qp_ex *qp, uint64_t operations);

#endif
