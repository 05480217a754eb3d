/*
 * rdma_provider.h - the contract between the verbs core and a provider
 *
 * This header is all that a provider needs: it can be written in C, C++ or Swift, from this file and
 * <infiniband/verbs.h> alone, and be shipped as a shared library of its own. Core and provider meet
 * nowhere else.
 *
 *
 * 1. VERSIONS
 *
 * The contract has a version, MAJOR.MINOR. Within one major version structs only grow at their end, no
 * field changes its meaning, and a function that was allowed to be absent stays so. Every struct that
 * crosses begins with `size`: what its maker filled. A reader looks at a field only after
 * RDMA_PROVIDES(pointer, field) has said that it is there. So an old provider runs on a new core, and a
 * new provider on an old core.
 *
 * Version 0.x is for the time in which the first providers are written: a new minor version may then
 * still break what is below it. Version 1.0 freezes the above.
 *
 * Negotiation goes both ways. The core hands its version to the entry point; a provider that needs more
 * answers NULL and a sentence. The provider answers the version that it was built against; a core that
 * cannot serve it refuses it with a sentence: another major version, or a minor version below
 * RDMA_PROVIDER_ABI_MINOR_OLDEST.
 *
 *
 * 2. OBJECTS
 *
 * What a provider hands out is the public struct of verbs.h - ibv_context, ibv_pd, ibv_mr, ibv_cq (as
 * ibv_cq_ex where it was made by create_cq_ex), ibv_srq, ibv_qp (always as ibv_qp_ex), ibv_ah, ... - as
 * the first member of a struct of its own, which holds its private state behind it. The provider
 * allocates that struct in create_*, alloc_*, open_* or reg_*, and frees it in the matching destroy_*,
 * dealloc_*, close_*, free_* or dereg_* when that returns 0. After an error the object is as it was.
 *
 * The initialisers at the end of this header (rdma_init_context, rdma_init_cq, ...) set what verbs.h
 * promises to every user: parents, mutexes, condition variables, counters. Call them before the kernel
 * or another thread can learn of the object.
 *
 * A context is the `context` member of a zeroed struct verbs_context (rdma_init_context does that).
 * When open_device has returned, the core fills every null slot of `context->ops` with a function that
 * answers EOPNOTSUPP (and sets *bad_wr to the first request), and the slots of struct verbs_context from
 * the provider's control table, so that the inline functions of verbs.h work on the context too. An
 * extended queue pair or completion queue has no such filling: create_qp_ex and create_cq_ex fill every
 * function pointer that the asked-for send_ops_flags and wc_flags call for, or refuse the flags.
 *
 * The data path is what verbs.h defines: context->ops (post_send, post_recv, post_srq_recv, poll_cq,
 * req_notify_cq, alloc_mw, dealloc_mw, bind_mw), the functions of struct ibv_qp_ex (wr_*) and of struct
 * ibv_cq_ex (start_poll, next_poll, end_poll, read_*). It goes from the application straight to the
 * provider; the core does not stand between. It must not allocate.
 *
 *
 * 3. ERRORS
 *
 * A function that returns int answers 0 or a positive errno value. A function that returns a pointer
 * answers NULL and sets errno. post_* set *bad_wr to the first request that was not taken; those before
 * it were. poll_cq answers the number of completions, or a negative errno value.
 *
 *   EOPNOTSUPP  this provider or device cannot do that: a null entry of the table, an unknown bit in a
 *               comp_mask, a flag or a queue pair type that it does not know
 *   EINVAL      an argument is out of range, objects do not belong together, a wrong state
 *   ENOMEM      no memory, a full queue (post_*), or a limit of the device
 *   EBUSY       something still uses the object (destroy_*)
 *   EAGAIN      nothing there yet, on a descriptor with O_NONBLOCK (get_*_event)
 *   EIO         the device is gone or has failed (chapter 6)
 *
 * What one function says beyond that stands beside it and in its man page (ibv_post_send(3), ...).
 * struct rdma_reason carries a sentence for a person: say what, where, and what to try.
 *
 *
 * 4. THREADS
 *
 * The core may call any function of the tables from any thread, several at once, also on one object. It
 * never calls a destroying function while another call on that object, or on one of its children, is
 * under way, and destroys children before parents. The functions of the data path may be called from
 * several threads at once, too, unless the object was made under a thread domain (alloc_parent_domain
 * with a td) or with IBV_CREATE_CQ_ATTR_SINGLE_THREADED: then from one at a time, and the provider may
 * leave its locks out. A wr_start ... wr_complete pair and a start_poll ... end_poll pair belong to one
 * thread each. No function may be called in a child after fork(2), except exec.
 *
 * On the data path a provider trusts the pointers that it is given: to the object, the first request of a
 * list, its elements, and bad_wr. The inline functions of verbs.h hand them through as their user gave
 * them, and looking costs every call. Numbers it does not trust: opcodes, flags, counts and lengths.
 *
 * A provider may have threads of its own. They block all signals, and are gone when close_context
 * returns. A provider never installs a signal handler, never prints, never exits; it says what it has to
 * say through rdma_core.log. It is never unloaded.
 *
 *
 * 5. EVENTS
 *
 * A completion channel and a context each have a descriptor (ibv_comp_channel.fd, ibv_context.async_fd)
 * that is readable when an event waits; the user may set O_NONBLOCK on it or hand it to poll(2).
 *
 * Where the events come from the kernel's uverbs, the core reads the kernel's records from these
 * descriptors itself (struct ib_uverbs_comp_event_desc, struct ib_uverbs_async_event_desc of
 * <rdma/ib_user_verbs.h>). So the user_handle that the provider gives to the kernel when it makes a CQ,
 * QP, SRQ or WQ is the address of that object's verbs.h struct. Having read one, the core calls cq_event
 * or async_event, if the provider has it, before the user sees it.
 *
 * Where they come from elsewhere (a software device, another library) the provider sets get_cq_event and
 * get_async_event, and the core calls these in place of reading. They wait, or answer EAGAIN where
 * O_NONBLOCK is set.
 *
 * An event that would repeat one which waits unread may be left out: it tells the reader nothing new.
 *
 * Each event must be acknowledged: the core counts acknowledgements in the object's public struct
 * (comp_events_completed, async_events_completed, events_completed), under its mutex, and signals its
 * condition variable. destroy_cq, destroy_qp, destroy_srq and destroy_wq first make sure that no
 * further event of that object can be read, drop those that wait unread, and then wait until those which
 * were read are acknowledged (rdma_wait_cq_events, rdma_wait_qp_events, rdma_wait_srq_events,
 * rdma_wait_wq_events); then they free the object.
 *
 *
 * 6. A DEVICE THAT GOES
 *
 * A device can be removed or fail while contexts of it are open. From the moment that the provider learns
 * of it, no call waits for the device any more, and its users hear of it in whatever way they listen:
 *
 *   events      IBV_EVENT_DEVICE_FATAL is raised once, as the last event of the context. What waits can
 *               still be read, then get_cq_event and get_async_event answer EIO, also to those who were
 *               waiting, and the descriptors stay readable.
 *   polling     poll_cq first answers what is in the CQ, and after that -EIO where it would have answered
 *               0; start_poll and next_poll answer EIO in place of ENOENT. The work requests that had not
 *               completed are flushed to the CQ before (IBV_WC_WR_FLUSH_ERR: whether they took effect at
 *               the peer is not known) where the provider can still tell which they are. Once poll_cq has
 *               answered -EIO, no completion comes any more.
 *   posting     post_*, bind_mw and wr_complete answer EIO and take nothing; *bad_wr is the first request.
 *               The same holds whenever a device does not take what was written for it: a request that
 *               was refused never completes.
 *               req_notify_cq answers EIO.
 *   the table   All else answers EIO, but what destroys (close_*, destroy_*, dealloc_*, dereg_*, detach_*,
 *               free_*): that frees what it always frees, and answers 0.
 *
 * Of a foreign context (RDMA_CONTEXT_FOREIGN) the library that made it decides what its data path answers.
 *
 *
 * 7. NOT IN THIS VERSION
 *
 * Of the families that libibverbs 44 (Debian 12) has, these have no entry yet: import of a device, PD,
 * MR or DM from another process; IPsec flow actions (flow_action_esp); tag matching (post_srq_ops). The
 * core answers EOPNOTSUPP for them.
 */
#ifndef RDMA_PROVIDER_H
#define RDMA_PROVIDER_H

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include <infiniband/verbs.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RDMA_PROVIDER_ABI_MAJOR 0
#define RDMA_PROVIDER_ABI_MINOR 1
/* The oldest minor version of a provider that a core of this version still serves. */
#define RDMA_PROVIDER_ABI_MINOR_OLDEST 1

/* Has the maker of *(pointer) filled `field`? Usable on every struct that begins with `size`. */
#define RDMA_PROVIDES(pointer, field)                                                                      \
	((pointer)->size >= offsetof(__typeof__(*(pointer)), field) + sizeof((pointer)->field))

/* A sentence for a person, in UTF-8 with its terminating zero; empty when there is nothing to say. The
 * caller of the function that fills it owns it. */
struct rdma_reason {
	uint32_t size;
	char text[508];
};

enum rdma_log_level {
	RDMA_LOG_ERROR = 0,   /* something the user asked for failed */
	RDMA_LOG_WARNING = 1, /* it works, but not as it should */
	RDMA_LOG_INFO = 2,
	RDMA_LOG_DEBUG = 3,
};

/* The core, as a provider sees it. Lives as long as the process. */
struct rdma_core {
	uint32_t size;
	uint16_t abi_major;
	uint16_t abi_minor;
	/* Version of the package, such as "0.1.0": to be shown, not to be compared. */
	const char *version;
	/* Any thread, never from the data path. `provider` is the caller's name, `message` one line. The
	 * core copies both. */
	void (*log)(enum rdma_log_level level, const char *provider, const char *message);
};

enum rdma_device_kind {
	/* A device of the kernel's RDMA subsystem, with a uverbs node. */
	RDMA_DEVICE_KERNEL = 0,
	/* A device in userspace; one of the providers listed it (list_devices). */
	RDMA_DEVICE_SOFTWARE = 1,
};

/* No kernel driver id is known (an old kernel without netlink, a software device). */
#define RDMA_DRIVER_ID_UNKNOWN UINT32_MAX

/* A software device, as list_devices writes it. */
struct rdma_software_device {
	/* As ibv_device.name: unique on the host, [A-Za-z0-9_.-], ends with a zero. */
	char name[IBV_SYSFS_NAME_MAX];
	/* Network interface, such as "lo", or empty. */
	char interface[16];
	uint32_t ifindex;
	uint32_t node_type;      /* enum ibv_node_type */
	uint32_t transport_type; /* enum ibv_transport_type */
	uint32_t reserved;
	__be64 node_guid;
};

/* A device that is to be opened. The core makes it; it lives as long as the process. */
struct rdma_device {
	uint32_t size;
	uint32_t kind; /* enum rdma_device_kind: open */
	/* The public struct, filled by the core, with 1024 zeroed bytes behind it, because other libraries
	 * look there. A context's `device` is this one, unless the context is foreign. */
	struct ibv_device *device;
	__be64 node_guid;
	/* enum rdma_driver_id of <rdma/ib_user_ioctl_verbs.h>, or RDMA_DRIVER_ID_UNKNOWN. */
	uint32_t driver_id;
	/* ABI version of the kernel driver (infiniband_verbs/uverbsN/abi_version) and of uverbs itself
	 * (infiniband_verbs/abi_version); 0 for a software device. */
	uint32_t kernel_abi;
	uint32_t uverbs_abi;
	/* PCI ids; all 0 where the device is not a PCI function. */
	uint16_t pci_vendor;
	uint16_t pci_device;
	uint16_t pci_subsystem_vendor;
	uint16_t pci_subsystem_device;
	/* Device number of the uverbs character device, 0 for a software device. Compare it with what was
	 * opened. */
	dev_t uverbs_dev;
	/* Network interface of a software device, else empty. */
	const char *interface;
	uint32_t ifindex;
	uint32_t reserved;
};

struct rdma_context_ops;

enum rdma_context_flags {
	/* The context belongs to another library, which has filled all of it: the core leaves context->ops
	 * and the struct around the context alone. */
	RDMA_CONTEXT_FOREIGN = 1 << 0,
};

/* What open_device answers. The core sets `size` to what it has room for, and zeroes the rest. */
struct rdma_context {
	uint32_t size;
	uint32_t flags; /* enum rdma_context_flags */
	struct ibv_context *context;
	/* The control table: static, the same for every object under the context. */
	const struct rdma_context_ops *ops;
};

/* The provider, as the core sees it: static data. */
struct rdma_provider {
	uint32_t size;
	/* RDMA_PROVIDER_ABI_MAJOR, RDMA_PROVIDER_ABI_MINOR of the header it was built with. */
	uint16_t abi_major;
	uint16_t abi_minor;
	/* Name as in the `driver` line of its driver file: [a-z0-9_-]+, at most 63 bytes. */
	const char *name;
	/* Version and maker, to be shown. */
	const char *version;
	const char *vendor;
	/* The range of rdma_device.kernel_abi that it can serve; 0 and UINT32_MAX: any. */
	uint32_t kernel_abi_min;
	uint32_t kernel_abi_max;

	/* Optional: writes up to `capacity` software devices that exist on this host to `devices`, and
	 * their number, which may be greater than `capacity`, to *count. `stride` is the distance from one
	 * to the next in bytes. Is called for built-in providers only: the devices of a loaded one are
	 * those which its driver file matches. */
	int (*list_devices)(struct rdma_software_device *devices, size_t stride, uint32_t capacity,
			    uint32_t *count);

	/* Optional: whether it can serve this device: 0, or ENODEV and the reason. Must be cheap and open
	 * nothing. Absent: it serves every device that it is matched with. */
	int (*probe_device)(const struct rdma_device *device, struct rdma_reason *why);

	/* Opens the device and fills *context, or answers an errno value and the reason. */
	int (*open_device)(const struct rdma_device *device, struct rdma_context *context,
			   struct rdma_reason *why);
};

/*
 * The entry point. A loadable provider exports exactly one symbol, rdma_provider_entry. One that is
 * linked in statically is called rdma_provider_entry_<name>, so that several can live in one program.
 *
 * Its type is checked, and it stays visible under -fvisibility=hidden, by the declaration
 *
 *     __attribute__((visibility("default"))) rdma_provider_entry_function rdma_provider_entry;
 *
 * Is called before anything else, and once by each core in the process (a program can hold two, when a
 * library that it loads has one of its own): a later call answers the same provider and leaves alone what
 * the first one prepared. Answers NULL and in *why what it misses ("needs provider ABI 1.4 or later, this
 * core has 1.2").
 */
typedef const struct rdma_provider *rdma_provider_entry_function(const struct rdma_core *core,
								 struct rdma_reason *why);
#define RDMA_PROVIDER_ENTRY_SYMBOL "rdma_provider_entry"

/*
 * The control table. An entry that is NULL, or lies beyond `size`, is not supported: the core answers
 * EOPNOTSUPP for it. An object can only be made if its destroying function is there as well.
 *
 * Where verbs.h has an inline function of the same family, the entry has the very type of its slot in
 * struct verbs_context. Structs that verbs.h extends under a comp_mask cross as they are: an unknown bit
 * answers EOPNOTSUPP, a field is read only if its bit is set. Those which grow without one (ibv_port_attr,
 * ibv_device_attr_ex, ibv_gid_entry, ibv_ece) cross with their size in bytes: the provider fills the
 * fields that fit and zeroes the rest.
 */
struct rdma_context_ops {
	size_t size;

	/* Closes the context; the core has destroyed all objects under it. Always there. */
	int (*close_context)(struct ibv_context *context);

	/* --- device, port, GID, P_Key: ibv_query_device_ex(3), ibv_query_port(3), ibv_query_gid_ex(3),
	 *     ibv_query_gid_table(3), ibv_query_pkey(3), ibv_query_rt_values_ex(3) --- */
	int (*query_device_ex)(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			       struct ibv_device_attr_ex *attr, size_t attr_size);
	/* Ports count from 1. EINVAL for another one. */
	int (*query_port)(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
			  size_t attr_size);
	/* ENODATA where that entry of the table is empty. */
	int (*query_gid_ex)(struct ibv_context *context, uint32_t port, uint32_t gid_index,
			    struct ibv_gid_entry *entry, uint32_t flags, size_t entry_size);
	/* All valid entries of all ports: their number, or a negative errno value. */
	ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *entries,
				   size_t max_entries, uint32_t flags, size_t entry_size);
	int (*query_pkey)(struct ibv_context *context, uint8_t port, int index, __be16 *pkey);
	int (*query_rt_values)(struct ibv_context *context, struct ibv_values_ex *values);

	/* --- protection, parent and thread domains: ibv_alloc_pd(3), ibv_alloc_parent_domain(3),
	 *     ibv_alloc_td(3) --- */
	struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
	/* A parent domain, too, is given back here. */
	int (*dealloc_pd)(struct ibv_pd *pd);
	struct ibv_pd *(*alloc_parent_domain)(struct ibv_context *context,
					      struct ibv_parent_domain_init_attr *attr);
	struct ibv_td *(*alloc_td)(struct ibv_context *context, struct ibv_td_init_attr *attr);
	int (*dealloc_td)(struct ibv_td *td);

	/* --- memory regions: ibv_reg_mr(3). `access` is enum ibv_access_flags; unknown bits within
	 *     IBV_ACCESS_OPTIONAL_RANGE are ignored, others answer EOPNOTSUPP. `iova` is the address by which
	 *     work requests and peers name the first byte. --- */
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				 unsigned int access);
	struct ibv_mr *(*reg_dmabuf_mr)(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
					int fd, int access);
	/* As ibv_rereg_mr(3), but answers 0 or a positive errno value; the region is unchanged after
	 * EINVAL and EOPNOTSUPP, and can only be deregistered after any other error. */
	int (*rereg_mr)(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length,
			int access);
	int (*dereg_mr)(struct ibv_mr *mr);
	struct ibv_mr *(*alloc_null_mr)(struct ibv_pd *pd);
	int (*advise_mr)(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags,
			 struct ibv_sge *sg_list, uint32_t num_sges);

	/* --- device memory: ibv_alloc_dm(3) --- */
	struct ibv_dm *(*alloc_dm)(struct ibv_context *context, struct ibv_alloc_dm_attr *attr);
	int (*free_dm)(struct ibv_dm *dm);
	struct ibv_mr *(*reg_dm_mr)(struct ibv_pd *pd, struct ibv_dm *dm, uint64_t dm_offset, size_t length,
				    unsigned int access);

	/* Memory windows are made, bound and given back in context->ops (alloc_mw, bind_mw, dealloc_mw). */

	/* --- completion channels and events (chapter 5): ibv_create_comp_channel(3), ibv_get_cq_event(3),
	 *     ibv_get_async_event(3) --- */
	struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *context);
	/* EBUSY while a CQ uses it. */
	int (*destroy_comp_channel)(struct ibv_comp_channel *channel);
	int (*get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **cq);
	/* The user is about to see a completion event of this CQ (hook; may be NULL). */
	void (*cq_event)(struct ibv_cq *cq);
	int (*get_async_event)(struct ibv_context *context, struct ibv_async_event *event);
	/* The user is about to see this asynchronous event (hook; may be NULL). */
	void (*async_event)(struct ibv_context *context, struct ibv_async_event *event);

	/* --- completion queues: ibv_create_cq(3), ibv_create_cq_ex(3), ibv_resize_cq(3), ibv_modify_cq(3).
	 *     The CQ has room for at least `cqe` completions and says in ibv_cq.cqe for how many. --- */
	struct ibv_cq *(*create_cq)(struct ibv_context *context, int cqe, void *cq_context,
				    struct ibv_comp_channel *channel, int comp_vector);
	struct ibv_cq_ex *(*create_cq_ex)(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);
	/* EINVAL if more completions than that wait in it. */
	int (*resize_cq)(struct ibv_cq *cq, int cqe);
	int (*modify_cq)(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr);
	int (*destroy_cq)(struct ibv_cq *cq);

	/* --- shared receive queues and XRC: ibv_create_srq_ex(3), ibv_modify_srq(3), ibv_open_xrcd(3),
	 *     ibv_open_qp(3), ibv_get_srq_num(3). create_srq_ex serves the basic kind as well, and writes
	 *     the true limits back to attr->attr. --- */
	struct ibv_srq *(*create_srq_ex)(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
	int (*modify_srq)(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask);
	int (*query_srq)(struct ibv_srq *srq, struct ibv_srq_attr *attr);
	int (*get_srq_num)(struct ibv_srq *srq, uint32_t *srq_num);
	int (*destroy_srq)(struct ibv_srq *srq);
	struct ibv_xrcd *(*open_xrcd)(struct ibv_context *context, struct ibv_xrcd_init_attr *attr);
	int (*close_xrcd)(struct ibv_xrcd *xrcd);
	struct ibv_qp *(*open_qp)(struct ibv_context *context, struct ibv_qp_open_attr *attr);

	/* --- queue pairs: ibv_create_qp_ex(3), ibv_modify_qp(3), ibv_query_qp(3). create_qp_ex serves the
	 *     basic kind as well (comp_mask is then IBV_QP_INIT_ATTR_PD; for create_srq_ex that and
	 *     IBV_SRQ_INIT_ATTR_TYPE), and writes the true limits back to attr->cap. modify_qp checks the
	 *     transition (EINVAL for a missing or a superfluous attribute, IBTA volume 1, 11.2.5.2) and keeps
	 *     ibv_qp.state true. --- */
	struct ibv_qp *(*create_qp_ex)(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
	/* The extended form of a queue pair that was made with IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, else NULL. */
	struct ibv_qp_ex *(*qp_to_qp_ex)(struct ibv_qp *qp);
	int (*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
	int (*query_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init);
	int (*modify_qp_rate_limit)(struct ibv_qp *qp, struct ibv_qp_rate_limit_attr *attr);
	/* 1 if data arrives in memory in order for that opcode, 0 if that is not promised. */
	int (*query_qp_data_in_order)(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags);
	int (*query_ece)(struct ibv_qp *qp, struct ibv_ece *ece, size_t ece_size);
	int (*set_ece)(struct ibv_qp *qp, struct ibv_ece *ece, size_t ece_size);
	int (*destroy_qp)(struct ibv_qp *qp);

	/* --- address handles and multicast: ibv_create_ah(3), ibv_attach_mcast(3) --- */
	struct ibv_ah *(*create_ah)(struct ibv_pd *pd, struct ibv_ah_attr *attr);
	int (*destroy_ah)(struct ibv_ah *ah);
	int (*attach_mcast)(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
	int (*detach_mcast)(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);

	/* --- work queues and indirection tables: ibv_create_wq(3), ibv_create_rwq_ind_table(3).
	 *     The receive function of a WQ is ibv_wq.post_recv. --- */
	struct ibv_wq *(*create_wq)(struct ibv_context *context, struct ibv_wq_init_attr *attr);
	int (*modify_wq)(struct ibv_wq *wq, struct ibv_wq_attr *attr);
	int (*destroy_wq)(struct ibv_wq *wq);
	struct ibv_rwq_ind_table *(*create_rwq_ind_table)(struct ibv_context *context,
							  struct ibv_rwq_ind_table_init_attr *attr);
	int (*destroy_rwq_ind_table)(struct ibv_rwq_ind_table *table);

	/* --- flow steering and counters: ibv_create_flow(3), ibv_create_counters(3) --- */
	struct ibv_flow *(*create_flow)(struct ibv_qp *qp, struct ibv_flow_attr *attr);
	int (*destroy_flow)(struct ibv_flow *flow);
	struct ibv_counters *(*create_counters)(struct ibv_context *context,
						struct ibv_counters_init_attr *attr);
	int (*attach_counters_point_flow)(struct ibv_counters *counters, struct ibv_counter_attach_attr *attr,
					  struct ibv_flow *flow);
	int (*read_counters)(struct ibv_counters *counters, uint64_t *values, uint32_t count, uint32_t flags);
	int (*destroy_counters)(struct ibv_counters *counters);
};

/*
 * Initialisers. Each is to be called on zeroed memory.
 */

/* Writes a sentence, cut to what fits. */
static inline void rdma_set_reason(struct rdma_reason *why, const char *text)
{
	size_t room;

	if (!why || why->size <= offsetof(struct rdma_reason, text))
		return;
	room = why->size - offsetof(struct rdma_reason, text) - 1;
	strncpy(why->text, text, room);
	why->text[room] = '\0';
}

/* async_fd and cmd_fd: -1 where there is none. num_comp_vectors: at least 1. */
static inline struct ibv_context *rdma_init_context(struct verbs_context *verbs, struct ibv_device *device,
						    int cmd_fd, int async_fd, int num_comp_vectors)
{
	struct ibv_context *context = &verbs->context;

	verbs->sz = sizeof(*verbs);
	context->device = device;
	context->cmd_fd = cmd_fd;
	context->async_fd = async_fd;
	context->num_comp_vectors = num_comp_vectors;
	context->abi_compat = (void *)UINTPTR_MAX;
	pthread_mutex_init(&context->mutex, NULL);
	return context;
}

static inline void rdma_fini_context(struct ibv_context *context)
{
	pthread_mutex_destroy(&context->mutex);
}

/* A completion channel counts the CQs that use it: rdma_init_cq and rdma_fini_cq keep the count. */
static inline void rdma_init_comp_channel(struct ibv_comp_channel *channel, struct ibv_context *context, int fd)
{
	channel->context = context;
	channel->fd = fd;
	channel->refcnt = 0;
}

/* Whether a CQ uses the channel. */
static inline int rdma_comp_channel_busy(struct ibv_comp_channel *channel)
{
	int busy;

	pthread_mutex_lock(&channel->context->mutex);
	busy = channel->refcnt != 0;
	pthread_mutex_unlock(&channel->context->mutex);
	return busy;
}

static inline void rdma_init_cq(struct ibv_cq *cq, struct ibv_context *context,
				struct ibv_comp_channel *channel, void *cq_context, int cqe)
{
	cq->context = context;
	cq->channel = channel;
	cq->cq_context = cq_context;
	cq->cqe = cqe;
	cq->comp_events_completed = 0;
	cq->async_events_completed = 0;
	pthread_mutex_init(&cq->mutex, NULL);
	pthread_cond_init(&cq->cond, NULL);
	if (channel) {
		pthread_mutex_lock(&context->mutex);
		channel->refcnt++;
		pthread_mutex_unlock(&context->mutex);
	}
}

static inline void rdma_fini_cq(struct ibv_cq *cq)
{
	if (cq->channel) {
		pthread_mutex_lock(&cq->context->mutex);
		cq->channel->refcnt--;
		pthread_mutex_unlock(&cq->context->mutex);
	}
	pthread_cond_destroy(&cq->cond);
	pthread_mutex_destroy(&cq->mutex);
}

static inline void rdma_init_srq(struct ibv_srq *srq, struct ibv_context *context,
				 const struct ibv_srq_init_attr_ex *attr)
{
	srq->context = context;
	srq->srq_context = attr->srq_context;
	srq->pd = attr->comp_mask & IBV_SRQ_INIT_ATTR_PD ? attr->pd : NULL;
	srq->events_completed = 0;
	pthread_mutex_init(&srq->mutex, NULL);
	pthread_cond_init(&srq->cond, NULL);
}

static inline void rdma_fini_srq(struct ibv_srq *srq)
{
	pthread_cond_destroy(&srq->cond);
	pthread_mutex_destroy(&srq->mutex);
}

static inline void rdma_init_qp(struct ibv_qp_ex *qp_ex, struct ibv_context *context,
				const struct ibv_qp_init_attr_ex *attr)
{
	struct ibv_qp *qp = &qp_ex->qp_base;

	qp->context = context;
	qp->qp_context = attr->qp_context;
	qp->pd = attr->comp_mask & IBV_QP_INIT_ATTR_PD ? attr->pd : NULL;
	qp->send_cq = attr->send_cq;
	qp->recv_cq = attr->recv_cq;
	qp->srq = attr->srq;
	qp->qp_type = attr->qp_type;
	qp->state = IBV_QPS_RESET;
	qp->events_completed = 0;
	pthread_mutex_init(&qp->mutex, NULL);
	pthread_cond_init(&qp->cond, NULL);
}

static inline void rdma_fini_qp(struct ibv_qp *qp)
{
	pthread_cond_destroy(&qp->cond);
	pthread_mutex_destroy(&qp->mutex);
}

static inline void rdma_init_wq(struct ibv_wq *wq, struct ibv_context *context,
				const struct ibv_wq_init_attr *attr)
{
	wq->context = context;
	wq->wq_context = attr->wq_context;
	wq->pd = attr->pd;
	wq->cq = attr->cq;
	wq->wq_type = attr->wq_type;
	wq->state = IBV_WQS_RESET;
	wq->events_completed = 0;
	pthread_mutex_init(&wq->mutex, NULL);
	pthread_cond_init(&wq->cond, NULL);
}

static inline void rdma_fini_wq(struct ibv_wq *wq)
{
	pthread_cond_destroy(&wq->cond);
	pthread_mutex_destroy(&wq->mutex);
}

/* Counters of acknowledged events wrap at 2^32, as those of the kernel do. */

/* `comp` and `async` are how many events of this CQ were read in all. */
static inline void rdma_wait_cq_events(struct ibv_cq *cq, uint32_t comp, uint32_t async)
{
	pthread_mutex_lock(&cq->mutex);
	while (cq->comp_events_completed != comp || cq->async_events_completed != async)
		pthread_cond_wait(&cq->cond, &cq->mutex);
	pthread_mutex_unlock(&cq->mutex);
}

static inline void rdma_wait_srq_events(struct ibv_srq *srq, uint32_t async)
{
	pthread_mutex_lock(&srq->mutex);
	while (srq->events_completed != async)
		pthread_cond_wait(&srq->cond, &srq->mutex);
	pthread_mutex_unlock(&srq->mutex);
}

static inline void rdma_wait_qp_events(struct ibv_qp *qp, uint32_t async)
{
	pthread_mutex_lock(&qp->mutex);
	while (qp->events_completed != async)
		pthread_cond_wait(&qp->cond, &qp->mutex);
	pthread_mutex_unlock(&qp->mutex);
}

static inline void rdma_wait_wq_events(struct ibv_wq *wq, uint32_t async)
{
	pthread_mutex_lock(&wq->mutex);
	while (wq->events_completed != async)
		pthread_cond_wait(&wq->cond, &wq->mutex);
	pthread_mutex_unlock(&wq->mutex);
}

#ifdef __cplusplus
}
#endif

#endif
