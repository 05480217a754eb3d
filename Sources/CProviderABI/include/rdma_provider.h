/*
 * rdma_provider.h - the provider ABI: the contract between the verbs core and a provider
 *
 * This header is all that a provider needs: a provider can be written in C, C++ or Swift, from this file and
 * <infiniband/verbs.h> alone, and be shipped as a shared library of its own. Core and provider have no other
 * interface. A provider of a kernel device gets the uverbs commands from the core: rdma_kernel.h, which this file
 * includes.
 *
 *
 * 1. VERSIONS
 *
 * The ABI has a version, MAJOR.MINOR. Within one major version structs only grow at their end, no field
 * changes its meaning, and a function that may be absent may always be absent. Every struct that core and
 * provider exchange begins with `size`, a uint32_t: the bytes of the struct in the header of the side that made
 * it. A reader accesses a field only when RDMA_PROVIDES(pointer, field) is true. So an old provider runs on a new
 * core, and a new provider on an old core. Where one side makes a struct and the other fills it (rdma_context,
 * rdma_reason, rdma_software_device), its maker zeroes it first: a field that the filling side does not know
 * reads as 0, and 0 always means absent.
 *
 * Version 0.9 is the candidate for 1.0, which freezes the above. Until then a new minor version may break an older
 * provider, if a fault of the contract cannot be mended otherwise.
 *
 * Negotiation goes both ways. The core passes its version to the entry point; a provider that needs a later
 * one returns NULL and a reason. The provider returns the version that it was built against; a core that
 * does not support it refuses it with a reason: another major version, or a minor version below
 * RDMA_PROVIDER_ABI_MINOR_OLDEST.
 *
 * Core, provider and application can each be built with another version of <infiniband/verbs.h>, from that of
 * rdma-core 44 on, and run together. For the structs of verbs.h these rules hold:
 *
 *   struct verbs_context    It grows at its front. rdma_init_context stores its size in the provider's verbs.h in
 *                           `sz`; the core, and the inline functions of verbs.h, access the slots within it only.
 *   ibv_qp_ex, ibv_cq_ex    They grow by functions at their end. A caller uses a new function only on an object
 *                           made with its flag (send_ops_flags, wc_flags), and create_qp_ex and create_cq_ex
 *                           refuse a flag that they do not know.
 *   objects of the provider At least RDMA_OBJECT_ROOM zeroed bytes follow each public struct that a provider
 *                           returns, except ibv_context, and stay zero, or hold functions of chapter 8: a member
 *                           that a later verbs.h adds reads as 0. The private state of the provider follows them.
 *   attributes with a mask  ibv_*_init_attr(_ex), ibv_qp_attr, ibv_wq_attr and others (comp_mask, attr_mask):
 *                           a field is read or written only if its bit is set, and an unknown bit is
 *                           EOPNOTSUPP. query_qp writes rate_limit only with IBV_QP_RATE_LIMIT in the mask.
 *   structs with their size ibv_port_attr, ibv_device_attr_ex, ibv_gid_entry, ibv_ece: passed with the size
 *                           in the caller's verbs.h (struct rdma_context_ops).
 *   all others              Their layout does not change (ibv_context_ops, ibv_send_wr, ibv_recv_wr, ibv_sge,
 *                           ibv_wc, ibv_ah_attr, ibv_srq_attr, ibv_async_event, ibv_mw_bind): the libibverbs
 *                           ABI has fixed it.
 *
 * These are part of the contract, too, because they are compiled into the programs that use a provider:
 *
 *   the inline functions of verbs.h
 *                           They read abi_compat and sz, call through context->ops, the slots of struct
 *                           verbs_context, struct ibv_qp_ex and struct ibv_cq_ex, and write ibv_qp_ex.wr_id,
 *                           wr_flags, ibv_cq_ex.wr_id and ibv_mw.rkey. None of that moves.
 *   pthread_mutex_t, pthread_cond_t
 *                           They are members of ibv_context, ibv_cq, ibv_srq, ibv_qp and ibv_wq. Core, provider and
 *                           program use the same C library, so a provider that was built with glibc does not run
 *                           under a core that was built with musl.
 *   the architecture        The recorded layouts are those of x86-64 and aarch64, both little-endian with 64-bit
 *                           pointers.
 *
 * Enums of verbs.h are open: a value that a provider does not know is EOPNOTSUPP, or EINVAL where verbs.h says so.
 *
 *
 * 2. OBJECTS
 *
 * A provider returns pointers to the public structs of verbs.h - ibv_context, ibv_pd, ibv_mr, ibv_cq (as
 * ibv_cq_ex where it was made by create_cq_ex), ibv_srq, ibv_qp (always as ibv_qp_ex), ibv_ah and others.
 * Each is the first member of a struct of the provider, whose private state follows it and RDMA_OBJECT_ROOM
 * zeroed bytes (chapter 1). The provider
 * allocates that struct in create_*, alloc_*, open_* or reg_*, and frees it in the matching destroy_*,
 * dealloc_*, close_*, free_* or dereg_* when that returns 0. After an error the object is unchanged.
 *
 * The initialisers at the end of this header (rdma_init_context, rdma_init_cq and others) set the members
 * that verbs.h promises to every user: parents, mutexes, condition variables, counters. There is one for each
 * object, and its comment lists the members that the provider sets itself. Call them before the
 * kernel or another thread can access the object.
 *
 * A context is the `context` member of a zeroed struct verbs_context (rdma_init_context does that).
 * When open_device has returned, the core fills every null slot of `context->ops` with a function that
 * returns EOPNOTSUPP (and sets *bad_wr to the first request), and the slots of struct verbs_context from
 * the provider's control table, so that the inline functions of verbs.h work on the context too. The
 * core does not fill extended queue pairs and completion queues: create_qp_ex and create_cq_ex fill every
 * function pointer for the given send_ops_flags and wc_flags, or refuse the flags.
 *
 * The data path is what verbs.h defines: context->ops (post_send, post_recv, post_srq_recv, poll_cq,
 * req_notify_cq, alloc_mw, dealloc_mw, bind_mw), the functions of struct ibv_qp_ex (wr_*) and of struct
 * ibv_cq_ex (start_poll, next_poll, end_poll, read_*). The application calls the
 * provider directly, without the core. The data path must not allocate.
 *
 *
 * 3. ERRORS
 *
 * A function whose result is int returns 0 or a positive errno value. A function whose result is a pointer
 * returns NULL and sets errno. post_* set *bad_wr to the first work request that was not posted; those before
 * it were. poll_cq returns the number of completions, or a negative errno value.
 *
 *   EOPNOTSUPP  this provider or device does not support it: a null entry of the table, an unknown bit in a
 *               comp_mask, a flag or a queue pair type that it does not know
 *   EINVAL      an argument is out of range, objects do not belong together, or the state is wrong
 *   ENOMEM      no memory, a full queue (post_*), or a limit of the device
 *   EBUSY       another object still uses the object (destroy_*)
 *   EPERM       the process is a child of the one that made the object (chapter 4), or may not do it
 *   EAGAIN      no event is queued, on a descriptor with O_NONBLOCK (get_*_event)
 *   EIO         the device was removed or has failed (chapter 6)
 *
 * Errors specific to one function are documented at its declaration and in its man page (ibv_post_send(3), for
 * example). struct rdma_reason holds an explanation for the user: what failed, on which object, why, and what
 * to try.
 *
 * The functions of the control table and list_devices have no such argument. One that fails can explain its
 * errno value with rdma_explain, on the calling thread, before it returns: "4093 queue pairs are open:
 * maxQueuePairs". The core drops earlier explanations of the thread before it calls such a function, and shows
 * the explanation to the user if the function returns the same errno value. Without an explanation the user sees
 * the general meaning of the errno value; a provider explains nothing where it knows no more. An error of a
 * system call is returned unchanged: ENOMEM, EMFILE or EPERM of the kernel is never replaced by a guess.
 *
 *
 * 4. THREADS
 *
 * The core may call any function of the tables from any thread, concurrently, also on one object. It never
 * calls a destroying function during another call on that object or on one of its children, and destroys
 * children before parents. The functions of the data path may be called from
 * several threads concurrently, too, unless the object was made under a thread domain (alloc_parent_domain
 * with a td) or with IBV_CREATE_CQ_ATTR_SINGLE_THREADED: then from one thread at a time, and the
 * provider may omit its locks. A wr_start ... wr_complete pair and a start_poll ... end_poll pair belong to one
 * thread each.
 *
 * Between start_poll and end_poll (a batch) the polling thread may call any other function, whether the
 * completion queue has a lock or not. The current completion counts as consumed from the moment that start_poll
 * or next_poll returns it: wr_id, status and read_* describe it until next_poll or end_poll, and only its slot
 * stays in use until then. So
 *
 *   destroy_qp, modify_qp   Any queue pair: its completions that were not returned yet are removed where the
 *                           provider removes completions at all; those of other queue pairs stay, in order.
 *   resize_cq               Moves the current completion along with the others, or refuses.
 *   req_notify_cq, post_*   Work as outside a batch.
 *   poll_cq, start_poll     On the same completion queue they return -EBUSY and EBUSY, or work; they never
 *                           wait.
 *   destroy_cq              Of the same completion queue: EBUSY.
 *   next_poll               May be called again after ENOENT. Without a batch it returns EINVAL, and end_poll
 *                           does nothing, where the provider can detect that.
 *
 * Another thread's call waits for the end of the batch. Two threads that, each inside a batch, destroy or
 * modify queue pairs of the other's completion queue must not wait for each other. Two programs deadlock
 * nevertheless: one whose thread waits, inside a batch, for another thread whose call waits for the batch; and
 * one that calls modify_qp or destroy_qp of a queue pair between its wr_start and wr_complete.
 *
 * The state of a queue pair belongs to the device, not to ibv_qp.state, which is what the provider knew last. On
 * iWARP the connection manager of the kernel moves queue pairs to RTS and to the error state, and on every transport an
 * error moves one. So a provider never refuses a work request because of a cached state that something other than
 * its own modify_qp can have changed: it posts, and the request completes or is flushed. It may refuse sends in
 * RESET, INIT and RTR, and receives in RESET, where only modify_qp leaves these states; not on iWARP.
 *
 * On the data path a provider trusts pointers: to the object, the first work request of a list, its SGEs, and
 * bad_wr. The inline functions of verbs.h pass them unchecked, and a check would cost every call. It does not
 * trust numbers: opcodes, flags, counts and lengths.
 *
 * A provider may have threads of its own. They block all signals, and have ended when close_context
 * returns. A provider never installs a signal handler, never prints and never exits; it logs messages with
 * rdma_core.log. It is never unloaded.
 *
 * After fork(2) the objects are the parent's alone, and the child may call exec and _exit. The core calls no function of the
 * tables in the child, not even to destroy, because kernel objects, descriptors and shared memory are the parent's:
 *
 *   registered memory       The device keeps the pages that the parent has. The kernel sees to that since Linux 5.12
 *                           (RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK): fork(2) copies pinned pages for the child. Neither core nor
 *                           provider marks them. On an older kernel the core keeps the pages from children with
 *                           MADV_DONTFORK while reg_mr, rereg_mr and dereg_mr have them registered, if the program
 *                           has called ibv_fork_init(3).
 *   memory of the provider  What it shares with the device, the kernel or another process (queues, doorbell records,
 *                           registers, rings) it maps with MADV_DONTFORK. A child that uses it gets SIGSEGV, and
 *                           cannot disturb the parent.
 *   descriptors             They have O_CLOEXEC.
 *   a device in userspace   It moves registered data by address, so that memory needs no mark. Where the data path uses
 *                           descriptors or threads, its functions detect a child (a word in a page with MADV_WIPEONFORK) and
 *                           return EPERM there, before they take a lock: a thread that the child does not have may hold it.
 *
 *
 * 5. EVENTS
 *
 * A completion channel and a context each have a descriptor (ibv_comp_channel.fd, ibv_context.async_fd)
 * that is readable while an event is queued; the user may set O_NONBLOCK on it or pass it to poll(2).
 *
 * Where the events come from the kernel's uverbs, the core reads the kernel's records from these
 * descriptors itself (struct ib_uverbs_comp_event_desc, struct ib_uverbs_async_event_desc of
 * <rdma/ib_user_verbs.h>). So the user_handle that the provider passes to the kernel when it makes a CQ,
 * QP, SRQ or WQ must be the address of that object's verbs.h struct. After it has read a record, the core calls
 * cq_event or async_event, if the provider has it, before it returns the event to the user.
 *
 * Where the events have another source (a software device, another library), the provider sets get_cq_event
 * and get_async_event, and the core calls these instead of reading. They wait, or return EAGAIN where
 * O_NONBLOCK is set.
 *
 * An event that would repeat an unread one may be omitted.
 *
 * Each event must be acknowledged: the core counts acknowledgements in the object's public struct
 * (comp_events_completed, async_events_completed, events_completed), under its mutex, and signals its
 * condition variable. destroy_cq, destroy_qp, destroy_srq and destroy_wq first make sure that no
 * further event of that object can be read, drop the unread ones, and then wait until those that were read
 * are acknowledged (rdma_wait_cq_events, rdma_wait_qp_events, rdma_wait_srq_events,
 * rdma_wait_wq_events); then they free the object.
 *
 *
 * 6. A DEVICE THAT GOES
 *
 * A device can be removed or fail while contexts of it are open. From the moment that the provider detects
 * it, no call waits for the device any more, and every interface reports it:
 *
 *   events      IBV_EVENT_DEVICE_FATAL is raised once, as the last event of the context. Queued
 *               events can still be read, then get_cq_event and get_async_event return EIO, also to threads
 *               that were waiting, and the descriptors stay readable.
 *   polling     poll_cq first returns the completions in the CQ, and after that -EIO where it would have
 *               returned 0; start_poll and next_poll return EIO instead of ENOENT. The work requests that had not
 *               completed are flushed to the CQ before (IBV_WC_WR_FLUSH_ERR: whether they took effect at
 *               the peer is not known) where the provider can still determine them. Once poll_cq has
 *               returned -EIO, no further completion is returned.
 *   posting     post_*, bind_mw and wr_complete return EIO and post nothing; *bad_wr is the first request.
 *               The same holds whenever a device does not accept a work request: a request that was
 *               refused never completes.
 *               req_notify_cq returns EIO.
 *   the table   All other functions return EIO, except those that destroy (close_*, destroy_*, dealloc_*,
 *               dereg_*, detach_*, free_*): they free the object as always, and return 0.
 *
 * For a foreign context (RDMA_CONTEXT_FOREIGN), the library that made it determines the results of its data path.
 *
 * A device that comes back is another device, also under the same name: it has a struct rdma_device and an ibv_device of
 * its own, and init_device is called for it, even while contexts of the old one are open. Those keep the old
 * struct rdma_device, which is never freed, and fini_device follows the last of them. The core tells a kernel device by
 * its registration in sysfs, and a software device by all that list_devices writes: only if all of it is as
 * before, is it the same device. A program that has an rdma_device of an old list can still open it: open_device
 * returns ENODEV where the device is gone, also if another one has its name now (uverbs_dev, cookie).
 *
 *
 * 7. EXTENSIONS
 *
 * An interface of a provider beyond this header (direct access to its queues, device commands, statistics) is an
 * extension: static data, usually a struct of functions that begins with its size, which the provider's own header
 * declares under a name and a version. A program asks for it with query_extension of a context, a device or
 * a provider, and gets NULL from a provider that does not have it. So no program needs the address of a
 * symbol in a provider, and two providers of one device can offer the same extension. A name begins with the name
 * of the provider that defined it and a hyphen, such as "mlx5-direct".
 *
 *
 * 8. VERBS OF LATER VERSIONS OF verbs.h
 *
 * The control table has an entry for each function of libibverbs up to rdma-core 65 (IBVERBS_1.18) that needs the
 * provider. Structs that verbs.h of rdma-core 44 does not have are declared without their members: only a provider
 * that implements such an entry needs a verbs.h that defines them. These functions have no entry of their own:
 *
 *   ibv_import_device         rdma_open_attr.cmd_fd
 *   ibv_reg_buf_mr            reg_mr_ex, with IBV_REG_MR_MASK_BUF
 *   ibv_wr_flush              a function of struct ibv_qp_ex (chapter 1), asked for by IBV_QP_EX_WITH_FLUSH
 *                             (RDMA_QP_EX_WITH_FLUSH). rdma_wr_flush_place returns its place
 *   CQ on memory of the user  not in verbs.h: an extension of the provider (chapter 7)
 *   ports above 255           query_port, query_pkey, struct ibv_ah_attr and struct ibv_qp_attr have 8 bits for a
 *                             port number in every verbs.h. query_gid_ex and query_port_speed have 32.
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
#define RDMA_PROVIDER_ABI_MINOR 9
/* The oldest minor version of a provider that a core of this version still serves. */
#define RDMA_PROVIDER_ABI_MINOR_OLDEST 9

/* Zeroed bytes behind each public struct of an object (chapter 1). */
#define RDMA_OBJECT_ROOM 64

/* Whether the maker of *(pointer) filled `field`. For every struct that begins with `size`. */
#define RDMA_PROVIDES(pointer, field)                                                                      \
	((pointer)->size >= offsetof(__typeof__(*(pointer)), field) + sizeof((pointer)->field))

/* IBV_QP_EX_WITH_FLUSH of verbs.h from rdma-core 46 on, in send_ops_flags. */
#define RDMA_QP_EX_WITH_FLUSH 0x800

/* ibv_wr_flush(3): rkey, address and length of the range, placement type, selectivity level. */
typedef void (*rdma_wr_flush)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr, size_t len, uint8_t type,
			      uint8_t level);

/* An explanation for the user, one line of UTF-8 with its terminating zero; empty when there is none. The caller of
 * the function that fills it owns it. */
struct rdma_reason {
	uint32_t size;
	char text[508]; /* this long in every version: later fields follow it */
};

enum rdma_log_level {
	RDMA_LOG_ERROR = 0,   /* a request of the user failed */
	RDMA_LOG_WARNING = 1, /* it works, but not as it should */
	RDMA_LOG_INFO = 2,
	RDMA_LOG_DEBUG = 3,
};

enum rdma_core_flags {
	/* The process runs with raised privileges (getauxval(3), AT_SECURE): ignore variables of the environment, and
	 * open no file that they name. */
	RDMA_CORE_RAISED_PRIVILEGES = 1 << 0,
	/* The program called ibv_fork_init(3) on a kernel that does not copy registered memory (chapter 4): a provider over a
	 * library that keeps pages from children itself makes that library do so. May appear while the process runs. */
	RDMA_CORE_FORK_SAFE = 1 << 1,
};

struct rdma_kernel_ops;

/* The core, as a provider sees it. Lives as long as the process. */
struct rdma_core {
	uint32_t size;
	uint16_t abi_major;
	uint16_t abi_minor;
	/* Version of the package, such as "1.0.0", for display; do not compare it. */
	const char *version;
	/* Logs a message. From any thread, never from the data path. `provider` is the caller's name, `message`
	 * one line. The core copies both. */
	void (*log)(enum rdma_log_level level, const char *provider, const char *message);
	/* Explains the errno value that a function of the control table is about to return on this thread
	 * (chapter 3). `message` is one line, which the core copies, up to 507 bytes. Never from the data
	 * path. An older core does not have this field: call it through rdma_explain. */
	void (*explain)(int error, const char *message);
	uint32_t flags; /* enum rdma_core_flags */
	/* Messages above this level are discarded (enum rdma_log_level). It changes while the process runs: test it
	 * with rdma_logs. */
	uint32_t log_level;
	/* The uverbs commands, for providers of kernel devices: rdma_kernel.h. May be NULL: reach it through
	 * rdma_kernel_ops_of. */
	const struct rdma_kernel_ops *kernel;
};

enum rdma_device_kind {
	/* A device of the kernel's RDMA subsystem, with a uverbs node. */
	RDMA_DEVICE_KERNEL = 0,
	/* A device in userspace; one of the providers listed it (list_devices). */
	RDMA_DEVICE_SOFTWARE = 1,
};

/* No kernel driver id is known (an old kernel without netlink, a software device). */
#define RDMA_DRIVER_ID_UNKNOWN UINT32_MAX

enum rdma_software_device_flags {
	/* The device is opened on request only, by its name or for an address of its interface. The core lists it
	 * nowhere else, so that a program that takes the first device does not open it. */
	RDMA_SOFTWARE_DEVICE_ON_REQUEST = 1,
};

/* A device in userspace, as list_devices writes it: over a network interface, AF_XDP, DPDK, Thunderbolt, shared memory
 * or whatever the provider operates. It has no `size`, because `stride` is the distance between two: the
 * provider writes the fields that it knows and that fit (rdma_add_software_device). In each text a zero follows
 * the last character, and all bytes behind it are zero. */
struct rdma_software_device {
	/* As ibv_device.name: unique on the host, [A-Za-z0-9_.-], 1 to 63 bytes. */
	char name[IBV_SYSFS_NAME_MAX];
	/* Network interface, such as "lo", and its index, where the device belongs to one; else empty and 0. */
	char interface[16];
	uint32_t ifindex;
	uint32_t node_type;      /* enum ibv_node_type */
	uint32_t transport_type; /* enum ibv_transport_type */
	uint32_t flags;          /* enum rdma_software_device_flags */
	__be64 node_guid;
	/* Where the device is, for people and for the provider, such as "pci 0000:3b:00.0" or "thunderbolt 0-1", or
	 * empty. */
	char location[64];
	/* A number of the provider's choice, which open_device and others find in rdma_device.cookie. It is not a
	 * pointer: another library with the provider's name may open the device. Where a device goes and another takes
	 * its name, their cookies differ (chapter 6). */
	uint64_t cookie;
};

/* A device to be opened. The core makes it; it lives as long as the process (chapter 6). */
struct rdma_device {
	uint32_t size;
	uint32_t kind; /* enum rdma_device_kind: open */
	/* The public struct, filled by the core, followed by 1024 zeroed bytes, because other libraries access
	 * them. ibv_context.device is this struct, unless the context is foreign. */
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
	/* Device number of the uverbs character device, 0 for a software device. Compare it with the opened
	 * file. */
	dev_t uverbs_dev;
	/* Network interface of a software device that has one, else empty. */
	const char *interface;
	uint32_t ifindex;
	uint32_t reserved;
	/* What init_device of the provider that opens the device has stored, else NULL. */
	void *provider_state;
	/* rdma_software_device.location and cookie; empty and 0 for a kernel device. */
	const char *location;
	uint64_t cookie;
};

struct rdma_context_ops;

/* Structs of later versions of verbs.h (chapter 8). */
struct ibv_buf;
struct ibv_comp_cntr;
struct ibv_comp_cntr_caps;
struct ibv_comp_cntr_init_attr;
struct ibv_dmah;
struct ibv_dmah_init_attr;
struct ibv_mr_init_attr;
struct ibv_qp_attach_comp_cntr_attr;

enum rdma_context_flags {
	/* The context belongs to another library, which has filled it: the core does not change context->ops
	 * and the struct around the context. */
	RDMA_CONTEXT_FOREIGN = 1 << 0,
};

/* How to open a device. The core makes it; it is valid during the call. */
struct rdma_open_attr {
	uint32_t size;
	/* A descriptor of the device's uverbs node that already has a context in the kernel, as for
	 * ibv_import_device(3), or -1: open the node. On success the provider owns it. A provider that does not
	 * import refuses it with EOPNOTSUPP. */
	int32_t cmd_fd;
	/* Names of extensions (query_extension) that the user wants in this context and that must be prepared when it is
	 * opened; NULL where there are none. A provider ignores names that it does not know: the user
	 * learns from query_extension what it got. */
	const char *const *extensions;
	uint32_t extension_count;
	uint32_t reserved;
};

/* The result of open_device. The core sets `size` to the size of its struct, and zeroes the rest. */
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
	/* Version and vendor, for display. */
	const char *version;
	const char *vendor;
	/* The range of rdma_device.kernel_abi that it supports; 0 and UINT32_MAX: any. */
	uint32_t kernel_abi_min;
	uint32_t kernel_abi_max;

	/* Optional: writes up to `capacity` software devices that exist on this host to `devices`, and
	 * their number, which may be greater than `capacity`, to *count: the core then calls it again. `stride` is the
	 * distance from one to the next in bytes, and the provider writes nothing beyond it; it can be less than
	 * sizeof(struct rdma_software_device) of the provider's header. Must be cheap: the core calls it whenever
	 * a program lists the devices, and opens no device for it. Called for a built-in provider, and for a library whose
	 * driver file has the line `list-devices yes`; of several with the provider's name, the first in rank that
	 * succeeds lists. The provider serves the devices that it lists, and others that its driver file matches. Returns
	 * 0, or an errno value where it cannot list them: it is then unknown whether there is a device. The core
	 * refuses a list that grows at each of four calls, and one of more than 4096 devices. */
	int (*list_devices)(struct rdma_software_device *devices, size_t stride, uint32_t capacity,
			    uint32_t *count);

	/* Optional: checks whether it can serve this device. Returns 0, or ENODEV and the reason. Must be cheap and
	 * open nothing. When absent, the provider serves every device that its driver file matches. */
	int (*probe_device)(const struct rdma_device *device, struct rdma_reason *why);

	/* Opens the device and fills *context. Returns 0, or an errno value and the reason. */
	int (*open_device)(const struct rdma_device *device, const struct rdma_open_attr *attr,
			   struct rdma_context *context, struct rdma_reason *why);

	/* Optional: state of the provider that all contexts of a device share, such as a table of queue
	 * numbers. The core calls init_device before the first open_device of a device, and passes *state in
	 * rdma_device.provider_state to it, and to every later call for this device; it calls fini_device
	 * after the last context was closed. Both or neither is present. Calls for one device are never
	 * concurrent with another init_device, fini_device or open_device of it. init_device returns 0, or an
	 * errno value and the reason. */
	int (*init_device)(const struct rdma_device *device, void **state, struct rdma_reason *why);
	void (*fini_device)(const struct rdma_device *device, void *state);

	/* Optional: an interface of the provider beyond this header, by a name that begins with the provider's, such as
	 * "mlx5-direct". It is found here where it belongs to a device that is not open, or to the
	 * provider as a whole (`device` is NULL), and in rdma_context_ops where it belongs to a context. The result is
	 * static data whose layout the provider's own header declares for that name and version; NULL where
	 * it does not have that version. */
	const void *(*query_extension)(const struct rdma_device *device, const char *name, uint32_t version);
};

/*
 * The entry point. A loadable provider exports exactly one symbol, rdma_provider_entry. One that is
 * linked in statically is called rdma_provider_entry_<name>, so that several can live in one program.
 *
 * Its type is checked, and it stays visible under -fvisibility=hidden, by the declaration
 *
 *     __attribute__((visibility("default"))) rdma_provider_entry_function rdma_provider_entry;
 *
 * It is called before any other function, and once by each core in the process (a program can contain two,
 * when a library that it loads contains one): a later call returns the same provider and does not change the
 * state that the first one prepared. Returns NULL, and the reason in *why, when it does not support the core
 * ("needs provider ABI 1.4 or later, this core has 1.2").
 */
typedef const struct rdma_provider *rdma_provider_entry_function(const struct rdma_core *core,
								 struct rdma_reason *why);
#define RDMA_PROVIDER_ENTRY_SYMBOL "rdma_provider_entry"

/*
 * The control table. An entry that is NULL, or lies beyond `size`, is not supported: the core returns
 * EOPNOTSUPP for it. An object can be made only if its destroying function is present as well.
 *
 * Where verbs.h has an inline function of the same family, the entry has the type of its slot in struct
 * verbs_context. Structs that verbs.h extends under a comp_mask are passed unchanged: an unknown bit is
 * EOPNOTSUPP, and a field is read only if its bit is set. Structs that grow without one (ibv_port_attr,
 * ibv_device_attr_ex, ibv_gid_entry, ibv_ece) are passed with their size in bytes: the provider fills the
 * fields that fit and zeroes the rest.
 */
struct rdma_context_ops {
	uint32_t size;
	uint32_t reserved;

	/* Closes the context; the core has destroyed all its objects. Always present. */
	int (*close_context)(struct ibv_context *context);
	/* As rdma_provider.query_extension, for this context. */
	const void *(*query_extension)(struct ibv_context *context, const char *name, uint32_t version);

	/* --- device, port, GID, P_Key: ibv_query_device_ex(3), ibv_query_port(3), ibv_query_gid_ex(3),
	 *     ibv_query_gid_table(3), ibv_query_pkey(3), ibv_query_rt_values_ex(3) --- */
	int (*query_device_ex)(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			       struct ibv_device_attr_ex *attr, size_t attr_size);
	/* Ports are numbered from 1. EINVAL for another one. */
	int (*query_port)(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
			  size_t attr_size);
	/* ENODATA where that entry of the table is empty. */
	int (*query_gid_ex)(struct ibv_context *context, uint32_t port, uint32_t gid_index,
			    struct ibv_gid_entry *entry, uint32_t flags, size_t entry_size);
	/* Writes all valid entries of all ports. Returns their number, or a negative errno value. */
	ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *entries,
				   size_t max_entries, uint32_t flags, size_t entry_size);
	int (*query_pkey)(struct ibv_context *context, uint8_t port, int index, __be16 *pkey);
	int (*query_rt_values)(struct ibv_context *context, struct ibv_values_ex *values);

	/* --- protection, parent and thread domains: ibv_alloc_pd(3), ibv_alloc_parent_domain(3),
	 *     ibv_alloc_td(3) --- */
	struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
	/* Deallocates parent domains, too. */
	int (*dealloc_pd)(struct ibv_pd *pd);
	struct ibv_pd *(*alloc_parent_domain)(struct ibv_context *context,
					      struct ibv_parent_domain_init_attr *attr);
	struct ibv_td *(*alloc_td)(struct ibv_context *context, struct ibv_td_init_attr *attr);
	int (*dealloc_td)(struct ibv_td *td);

	/* --- memory regions: ibv_reg_mr(3). `access` is enum ibv_access_flags; unknown bits within
	 *     IBV_ACCESS_OPTIONAL_RANGE are ignored, others are EOPNOTSUPP. `iova` is the address by which
	 *     work requests and peers name the first byte. --- */
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				 unsigned int access);
	struct ibv_mr *(*reg_dmabuf_mr)(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
					int fd, int access);
	/* As ibv_rereg_mr(3), but returns 0 or a positive errno value. The region is unchanged after EINVAL and
	 * EOPNOTSUPP, and can only be deregistered after any other error. */
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

	/* Memory windows are allocated, bound and deallocated in context->ops (alloc_mw, bind_mw, dealloc_mw). */

	/* --- completion channels and events (chapter 5): ibv_create_comp_channel(3), ibv_get_cq_event(3),
	 *     ibv_get_async_event(3) --- */
	struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *context);
	/* EBUSY while a CQ uses the channel. */
	int (*destroy_comp_channel)(struct ibv_comp_channel *channel);
	int (*get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **cq);
	/* Hook, may be NULL: the core is about to return a completion event of this CQ to the user. */
	void (*cq_event)(struct ibv_cq *cq);
	int (*get_async_event)(struct ibv_context *context, struct ibv_async_event *event);
	/* Hook, may be NULL: the core is about to return this asynchronous event to the user. */
	void (*async_event)(struct ibv_context *context, struct ibv_async_event *event);

	/* --- completion queues: ibv_create_cq(3), ibv_create_cq_ex(3), ibv_resize_cq(3), ibv_modify_cq(3).
	 *     The CQ has room for at least `cqe` completions; ibv_cq.cqe is its capacity. --- */
	struct ibv_cq *(*create_cq)(struct ibv_context *context, int cqe, void *cq_context,
				    struct ibv_comp_channel *channel, int comp_vector);
	struct ibv_cq_ex *(*create_cq_ex)(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);
	/* EINVAL if the CQ contains more completions than that. */
	int (*resize_cq)(struct ibv_cq *cq, int cqe);
	int (*modify_cq)(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr);
	int (*destroy_cq)(struct ibv_cq *cq);

	/* --- shared receive queues and XRC: ibv_create_srq_ex(3), ibv_modify_srq(3), ibv_open_xrcd(3),
	 *     ibv_open_qp(3), ibv_get_srq_num(3). create_srq_ex makes the basic kind as well, and writes
	 *     the actual limits back to attr->attr. --- */
	struct ibv_srq *(*create_srq_ex)(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
	int (*modify_srq)(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask);
	int (*query_srq)(struct ibv_srq *srq, struct ibv_srq_attr *attr);
	int (*get_srq_num)(struct ibv_srq *srq, uint32_t *srq_num);
	int (*destroy_srq)(struct ibv_srq *srq);
	struct ibv_xrcd *(*open_xrcd)(struct ibv_context *context, struct ibv_xrcd_init_attr *attr);
	int (*close_xrcd)(struct ibv_xrcd *xrcd);
	struct ibv_qp *(*open_qp)(struct ibv_context *context, struct ibv_qp_open_attr *attr);

	/* --- queue pairs: ibv_create_qp_ex(3), ibv_modify_qp(3), ibv_query_qp(3). create_qp_ex makes the
	 *     basic kind as well (comp_mask is then IBV_QP_INIT_ATTR_PD; for create_srq_ex that and
	 *     IBV_SRQ_INIT_ATTR_TYPE), and writes the actual limits back to attr->cap. With a shared
	 *     receive queue, max_recv_wr and max_recv_sge are ignored and written back as 0. modify_qp checks the
	 *     transition (EINVAL for a missing or a superfluous attribute, IBTA volume 1, 11.2.5.2) and stores
	 *     the new state in ibv_qp.state. --- */
	struct ibv_qp *(*create_qp_ex)(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
	/* The extended form of a queue pair that was made with IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, else NULL. */
	struct ibv_qp_ex *(*qp_to_qp_ex)(struct ibv_qp *qp);
	int (*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
	int (*query_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init);
	int (*modify_qp_rate_limit)(struct ibv_qp *qp, struct ibv_qp_rate_limit_attr *attr);
	/* A set of enum ibv_query_qp_data_in_order_caps of newer versions of verbs.h. With flags 0 only the bit for the whole
	 * message (1) may be set; with IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS (1) any. Unknown flags: 0. */
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
	/* IPsec: ibv_flow_action_esp(3). */
	struct ibv_flow_action *(*create_flow_action_esp)(struct ibv_context *context,
							  struct ibv_flow_action_esp_attr *attr);
	int (*modify_flow_action_esp)(struct ibv_flow_action *action, struct ibv_flow_action_esp_attr *attr);
	int (*destroy_flow_action)(struct ibv_flow_action *action);

	/* --- tag matching: ibv_post_srq_ops(3), on a shared receive queue with IBV_SRQT_TM. *bad_op as *bad_wr. --- */
	int (*post_srq_ops)(struct ibv_srq *srq, struct ibv_ops_wr *op, struct ibv_ops_wr **bad_op);

	/* --- import from another process: ibv_import_pd(3), ibv_import_mr(3), ibv_import_dm(3). The context was opened
	 *     with rdma_open_attr.cmd_fd. The handle is that of the object in the exporting process. unimport_* free
	 *     the struct, and leave the object in the kernel. --- */
	struct ibv_pd *(*import_pd)(struct ibv_context *context, uint32_t handle);
	void (*unimport_pd)(struct ibv_pd *pd);
	struct ibv_mr *(*import_mr)(struct ibv_pd *pd, uint32_t handle);
	void (*unimport_mr)(struct ibv_mr *mr);
	struct ibv_dm *(*import_dm)(struct ibv_context *context, uint32_t handle);
	void (*unimport_dm)(struct ibv_dm *dm);

	/* --- verbs of later versions of verbs.h (chapter 8): ibv_reg_mr_ex(3), ibv_alloc_dmah(3), ibv_alloc_buf(3),
	 *     ibv_query_port_speed(3), ibv_create_comp_cntr(3) --- */
	struct ibv_mr *(*reg_mr_ex)(struct ibv_pd *pd, struct ibv_mr_init_attr *attr);
	struct ibv_dmah *(*alloc_dmah)(struct ibv_context *context, struct ibv_dmah_init_attr *attr);
	int (*dealloc_dmah)(struct ibv_dmah *dmah);
	/* The address is page aligned; *buf is the handle. */
	void *(*alloc_buf)(struct ibv_pd *pd, size_t size, struct ibv_buf **buf);
	void (*free_buf)(struct ibv_buf *buf);
	/* A new descriptor of the dma-buf, which the caller owns, or a negative errno value. */
	int (*export_buf_dmabuf_fd)(struct ibv_buf *buf);
	int (*dm_export_dmabuf_fd)(struct ibv_dm *dm);
	/* *speed in units of 100 Mb/s. */
	int (*query_port_speed)(struct ibv_context *context, uint32_t port, uint64_t *speed);
	int (*query_comp_cntr_caps)(struct ibv_context *context, struct ibv_comp_cntr_caps *caps, size_t caps_size);
	struct ibv_comp_cntr *(*create_comp_cntr)(struct ibv_context *context, struct ibv_comp_cntr_init_attr *attr);
	int (*destroy_comp_cntr)(struct ibv_comp_cntr *counter);
	int (*set_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t value);
	int (*set_err_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t value);
	int (*inc_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t amount);
	int (*inc_err_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t amount);
	int (*read_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t *value);
	int (*read_err_comp_cntr)(struct ibv_comp_cntr *counter, uint64_t *value);
	int (*qp_attach_comp_cntr)(struct ibv_qp *qp, struct ibv_comp_cntr *counter,
				   struct ibv_qp_attach_comp_cntr_attr *attr);
};

/*
 * Initialisers. Call each on zeroed memory. Those of objects without a mutex zero the public struct and the padding at
 * its end, into which a later verbs.h may put a member.
 */

/* Writes a reason, truncated to the room for it. */
static inline void rdma_set_reason(struct rdma_reason *why, const char *text)
{
	size_t room = sizeof(why->text) - 1;

	if (!why || !RDMA_PROVIDES(why, text))
		return;
	strncpy(why->text, text, room);
	why->text[room] = '\0';
}

/* Adds a device to the list of list_devices, which passes its arguments; *count is 0 before the first. A device beyond
 * the capacity is only counted. */
static inline void rdma_add_software_device(struct rdma_software_device *devices, size_t stride, uint32_t capacity,
					    uint32_t *count, const struct rdma_software_device *device)
{
	if (*count < capacity)
		memcpy((char *)devices + *count * stride, device, stride < sizeof(*device) ? stride : sizeof(*device));
	++*count;
}

/* Whether a message of that level reaches a reader: whether it is worth formatting. */
static inline int rdma_logs(const struct rdma_core *core, enum rdma_log_level level)
{
	if (!core || !RDMA_PROVIDES(core, log_level))
		return 1;
	return __atomic_load_n(&core->log_level, __ATOMIC_RELAXED) >= (uint32_t)level;
}

/* Explains `error` to the user (chapter 3), and returns it, for use as `return rdma_explain(core, EINVAL, text);`. On a
 * core without rdma_core.explain it only returns the error. */
static inline int rdma_explain(const struct rdma_core *core, int error, const char *message)
{
	if (core && RDMA_PROVIDES(core, explain) && core->explain)
		core->explain(error, message);
	return error;
}

/* Initialises a context. async_fd and cmd_fd: -1 where there is none. num_comp_vectors: at least 1. */
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

/* ibv_alloc_pd, and ibv_alloc_parent_domain: a parent domain has the handle of its protection domain. */
static inline void rdma_init_pd(struct ibv_pd *pd, struct ibv_context *context, uint32_t handle)
{
	memset(pd, 0, sizeof(*pd));
	pd->context = context;
	pd->handle = handle;
}

static inline void rdma_init_td(struct ibv_td *td, struct ibv_context *context)
{
	memset(td, 0, sizeof(*td));
	td->context = context;
}

/* Every kind of memory region. `addr` is the address that reg_mr was called with; the offset as a pointer for
 * reg_dmabuf_mr; NULL for reg_dm_mr and alloc_null_mr, whose length is SIZE_MAX. rereg_mr calls it again, with what the
 * region is afterwards, before it returns 0: the object stays, its keys may change. */
static inline void rdma_init_mr(struct ibv_mr *mr, struct ibv_pd *pd, void *addr, size_t length, uint32_t handle,
				uint32_t lkey, uint32_t rkey)
{
	memset(mr, 0, sizeof(*mr));
	mr->context = pd->context;
	mr->pd = pd;
	mr->addr = addr;
	mr->length = length;
	mr->handle = handle;
	mr->lkey = lkey;
	mr->rkey = rkey;
}

/* bind_mw sets mw->rkey of a type 1 window to the new key; that of a type 2 window changes by
 * ibv_inc_rkey in the application, with the work request. */
static inline void rdma_init_mw(struct ibv_mw *mw, struct ibv_pd *pd, enum ibv_mw_type type, uint32_t handle,
				uint32_t rkey)
{
	memset(mw, 0, sizeof(*mw));
	mw->context = pd->context;
	mw->pd = pd;
	mw->rkey = rkey;
	mw->handle = handle;
	mw->type = type;
}

static inline void rdma_init_ah(struct ibv_ah *ah, struct ibv_pd *pd, uint32_t handle)
{
	memset(ah, 0, sizeof(*ah));
	ah->context = pd->context;
	ah->pd = pd;
	ah->handle = handle;
}

/* The provider sets memcpy_to_dm and memcpy_from_dm, which ibv_memcpy_to_dm(3) calls without a check. */
static inline void rdma_init_dm(struct ibv_dm *dm, struct ibv_context *context, uint32_t handle)
{
	memset(dm, 0, sizeof(*dm));
	dm->context = context;
	dm->handle = handle;
}

static inline void rdma_init_xrcd(struct ibv_xrcd *xrcd, struct ibv_context *context)
{
	memset(xrcd, 0, sizeof(*xrcd));
	xrcd->context = context;
}

/* ibv_rwq_ind_table.ind_tbl_num is the QP number that flows address, or 0. */
static inline void rdma_init_rwq_ind_table(struct ibv_rwq_ind_table *table, struct ibv_context *context, int handle,
					   int number)
{
	memset(table, 0, sizeof(*table));
	table->context = context;
	table->ind_tbl_handle = handle;
	table->ind_tbl_num = number;
}

static inline void rdma_init_flow(struct ibv_flow *flow, struct ibv_context *context, uint32_t handle)
{
	memset(flow, 0, sizeof(*flow));
	flow->context = context;
	flow->handle = handle;
}

static inline void rdma_init_flow_action(struct ibv_flow_action *action, struct ibv_context *context)
{
	memset(action, 0, sizeof(*action));
	action->context = context;
}

static inline void rdma_init_counters(struct ibv_counters *counters, struct ibv_context *context)
{
	memset(counters, 0, sizeof(*counters));
	counters->context = context;
}

/* A completion channel counts the CQs that use it: rdma_init_cq and rdma_fini_cq keep the count. */
static inline void rdma_init_comp_channel(struct ibv_comp_channel *channel, struct ibv_context *context, int fd)
{
	channel->context = context;
	channel->fd = fd;
	channel->refcnt = 0;
}

/* Returns 1 while a CQ uses the channel, else 0. */
static inline int rdma_comp_channel_busy(struct ibv_comp_channel *channel)
{
	int busy;

	pthread_mutex_lock(&channel->context->mutex);
	busy = channel->refcnt != 0;
	pthread_mutex_unlock(&channel->context->mutex);
	return busy;
}

/* The provider sets cq->handle, where the kernel has one, and the functions of an extended CQ. */
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

/* The provider sets srq->handle. */
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

/* The provider sets qp->handle and qp->qp_num, stores each new state in qp->state, and sets the functions of an extended QP. */
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

/* The place of wr_flush in struct ibv_qp_ex: the member after wr_atomic_write, which verbs.h of rdma-core 44 does not
 * have. There it is the first word of the room behind the struct (chapter 1). */
static inline rdma_wr_flush *rdma_wr_flush_place(struct ibv_qp_ex *qp)
{
	return (rdma_wr_flush *)(void *)(&qp->wr_atomic_write + 1);
}

static inline void rdma_fini_qp(struct ibv_qp *qp)
{
	pthread_cond_destroy(&qp->cond);
	pthread_mutex_destroy(&qp->mutex);
}

/* The provider sets wq->handle, wq->wq_num and wq->post_recv, and stores each new state in wq->state. */
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

/* Waits until the events of a CQ are acknowledged. `comp` and `async`: how many were read in all. */
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

#include <rdma_kernel.h>

#endif
