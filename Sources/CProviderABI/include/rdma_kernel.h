/*
 * rdma_kernel.h - for providers of kernel devices: the uverbs commands, as functions of the core
 *
 * A part of the provider ABI: rdma_provider.h includes this file, and its rules hold here (versions, errors, threads).
 * A provider whose device has a uverbs node reaches the functions through rdma_core.kernel:
 *
 *     const struct rdma_kernel_ops *kernel = rdma_kernel_ops_of(core);   // NULL on a core without them
 *
 * They do what the private functions ibv_cmd_* of libibverbs do for its providers. For each command there is one
 * function, with the name of the verb. It fills the kernel's common structs from those of verbs.h, adds the driver's
 * own request and response (struct rdma_udata), and calls the kernel: by ioctl(2) where the kernel has the method, else
 * by write(2). Which commands a kernel accepts by write(2) only is found out once for each open node. For them a
 * provider needs no struct of <rdma/ib_user_verbs.h>, only those of its driver, such as <rdma/rdma_user_rxe.h>.
 *
 *
 * OBJECTS
 *
 * A function that makes an object gets memory of the provider that begins with the public struct and is zeroed. It calls
 * the initialiser (rdma_init_cq and others), makes the object in the kernel with the address of the public struct as its
 * user_handle (rdma_provider.h, chapter 5), and sets `handle` and what else the kernel has returned. After an
 * error there is no object in the kernel, and the provider frees the memory. The provider sets what the comments of
 * the initialisers say, such as the functions of an extended CQ.
 *
 * A function that destroys an object destroys it in the kernel, waits until its events are acknowledged (destroy_cq,
 * destroy_qp, destroy_srq), and undoes the initialiser (rdma_fini_cq and others); then the provider unmaps
 * the queues and frees the memory. After an error the object is unchanged. If the device is gone (EIO of the kernel),
 * its objects are too: the result is 0. The caller must not hold a lock that a thread needs on its way to
 * acknowledge an event.
 *
 * A parent domain is passed in place of its protection domain: it has the same handle.
 *
 *
 * ERRORS
 *
 * The result is 0 or a positive errno value, as in chapter 3 of rdma_provider.h. What the kernel has returned
 * is returned unchanged, with two exceptions: a method or command that it does not have (ENOTTY, EPROTONOSUPPORT) is
 * EOPNOTSUPP, and see OBJECTS for EIO. EINVAL without a call of the kernel: an argument is NULL, a struct is smaller than
 * its first version, or a length is no multiple of 4 or above 65,532.
 *
 *
 * WHAT IS NOT HERE
 *
 * Device memory, XRC domains, work queues, indirection tables, flows, counters and CQ moderation: a provider calls their
 * methods and commands by execute_ioctl and execute_write, as it does with methods of its driver. Posting to a
 * device whose queues are in the kernel (POST_SEND, POST_RECV): the provider calls write(2) on cmd_fd itself,
 * because that is its data path.
 */
#ifndef RDMA_KERNEL_H
#define RDMA_KERNEL_H

#include <rdma_provider.h>

#include <rdma/rdma_user_ioctl_cmds.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open uverbs node, with its descriptor and, after get_context, that of the asynchronous events. Any thread may call any
 * function with it, concurrently with others; get_context comes before all others, and close_node after them. */
struct rdma_kernel;

/* The private data of the kernel's driver that goes with a command (UVERBS_ATTR_UHW_IN, UVERBS_ATTR_UHW_OUT; struct
 * ib_udata in the kernel). NULL in place of it: the command has none. */
struct rdma_udata {
	uint32_t size;
	/* Bytes of the driver's request and response: multiples of 4, or of 8 where the command is an extended one. */
	uint32_t in_len;
	uint32_t out_len;
	uint32_t reserved;
	const void *in;
	/* Zeroed by the caller: an older driver writes fewer bytes. */
	void *out;
};

/* What get_context returns. The provider makes it and sets `size`. */
struct rdma_kernel_context {
	uint32_t size;
	/* The arguments of rdma_init_context. close_node closes both descriptors. */
	int32_t cmd_fd;
	int32_t async_fd;
	int32_t num_comp_vectors;
	uint64_t core_support; /* enum ib_uverbs_core_support of <rdma/ib_user_ioctl_verbs.h> */
};

/* The functions. Static data of the core. A function that an older core does not have lies beyond `size`. */
struct rdma_kernel_ops {
	uint32_t size;
	uint32_t reserved;

	/* --- the node and its context --- */

	/* Opens the device's uverbs node, or imports attr->cmd_fd if that is not -1. It must be the character device
	 * rdma_device.uverbs_dev. `driver_id` is the kernel's driver that the provider is for (enum rdma_driver_id): the
	 * kernel refuses commands for another one. Returns 0, or an errno value and the reason. ENODEV: not a kernel
	 * device, or a version of uverbs that the core does not know. */
	int (*open_node)(const struct rdma_device *device, const struct rdma_open_attr *attr, uint32_t driver_id,
			 struct rdma_kernel **kernel, struct rdma_reason *why);
	/* ibv_cmd_get_context: makes the context in the kernel, before any other command. After an error it may be
	 * called again with other private data, but not after EMFILE and ENFILE: the context then exists without a
	 * descriptor for its events. On an imported node it queries the context that exists (ibv_cmd_query_context);
	 * udata->in_len is then 0, and the result EOPNOTSUPP where the kernel's driver has no such query. */
	int (*get_context)(struct rdma_kernel *kernel, const struct rdma_udata *udata,
			   struct rdma_kernel_context *context, struct rdma_reason *why);
	/* Closes the node, and with it the context and all its objects in the kernel. An imported descriptor stays
	 * open if get_context has not succeeded: it is still the caller's. */
	void (*close_node)(struct rdma_kernel *kernel);

	/* --- any command --- */

	/* execute_ioctl of libibverbs: RDMA_VERBS_IOCTL with a method (enum uverbs_default_objects or the driver's own,
	 * and a method of the object) and its attributes. The attributes are as the kernel has them: input of up to 8 bytes
	 * lies in `data`, longer input and all output lie at the address in `data`. Handles and descriptors of new
	 * objects are in `data` after the call. At most 4,094 attributes. EOPNOTSUPP: the kernel does not have the method,
	 * or not the attributes that are mandatory; there may be a write command instead. */
	int (*execute_ioctl)(struct rdma_kernel *kernel, uint16_t object_id, uint16_t method_id,
			     struct ib_uverbs_attr *attrs, uint32_t num_attrs);
	/* execute_cmd_write of libibverbs: a command of enum ib_uverbs_write_cmds, with IB_USER_VERBS_CMD_FLAG_EXTENDED for an
	 * extended one, by ioctl (UVERBS_METHOD_INVOKE_WRITE) or write(2). `request` and `response` are the common structs
	 * of <rdma/ib_user_verbs.h>, without headers; `response` is NULL where there is none. The core sets the field
	 * `response` at the beginning of the request of a plain command that has a response. */
	int (*execute_write)(struct rdma_kernel *kernel, uint32_t command, const void *request, uint32_t request_size,
			     void *response, uint32_t response_size, const struct rdma_udata *udata);

	/* --- memory that the driver offers for mapping: queues, doorbells, registers --- */

	/* mmap(2) of `length` bytes of the node at `offset`, shared, with PROT_READ and PROT_WRITE as in `prot`. A child of
	 * fork(2) does not inherit it. NULL and errno on failure. */
	void *(*map)(struct rdma_kernel *kernel, uint64_t offset, size_t length, int prot);
	void (*unmap)(void *address, size_t length);

	/* --- device, port, GID, P_Key: entries of struct rdma_context_ops. A GID or P_Key that the kernel has no command
	 *     for is read from sysfs --- */

	/* ibv_cmd_query_device_any. Sets orig_attr.fw_ver to the three 16-bit numbers that most drivers report; *raw_fw_ver,
	 * unless NULL, is what the driver reported. EOPNOTSUPP for a comp_mask in `input`. */
	int (*query_device_ex)(struct rdma_kernel *kernel, const struct ibv_query_device_ex_input *input,
			       struct ibv_device_attr_ex *attr, size_t attr_size, const struct rdma_udata *udata,
			       uint64_t *raw_fw_ver);
	int (*query_port)(struct rdma_kernel *kernel, uint32_t port, struct ibv_port_attr *attr, size_t attr_size);
	int (*query_gid_ex)(struct rdma_kernel *kernel, uint32_t port, uint32_t gid_index, struct ibv_gid_entry *entry,
			    uint32_t flags, size_t entry_size);
	ssize_t (*query_gid_table)(struct rdma_kernel *kernel, struct ibv_gid_entry *entries, size_t max_entries,
				   uint32_t flags, size_t entry_size);
	int (*query_pkey)(struct rdma_kernel *kernel, uint32_t port, int index, __be16 *pkey);

	/* --- protection domains: ibv_cmd_alloc_pd, ibv_cmd_dealloc_pd --- */
	int (*alloc_pd)(struct rdma_kernel *kernel, struct ibv_pd *pd, struct ibv_context *context,
			const struct rdma_udata *udata);
	int (*dealloc_pd)(struct rdma_kernel *kernel, struct ibv_pd *pd);

	/* --- memory regions and windows: ibv_cmd_reg_mr and others. The core clears the bits of IBV_ACCESS_OPTIONAL_RANGE on a
	 *     kernel that does not know them --- */
	int (*reg_mr)(struct rdma_kernel *kernel, struct ibv_mr *mr, struct ibv_pd *pd, void *addr, size_t length,
		      uint64_t iova, unsigned int access, const struct rdma_udata *udata);
	int (*reg_dmabuf_mr)(struct rdma_kernel *kernel, struct ibv_mr *mr, struct ibv_pd *pd, uint64_t offset,
			     size_t length, uint64_t iova, int fd, int access, const struct rdma_udata *udata);
	/* Calls rdma_init_mr again with what the region is afterwards. */
	int (*rereg_mr)(struct rdma_kernel *kernel, struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr,
			size_t length, uint64_t iova, int access, const struct rdma_udata *udata);
	int (*dereg_mr)(struct rdma_kernel *kernel, struct ibv_mr *mr);
	int (*advise_mr)(struct rdma_kernel *kernel, struct ibv_pd *pd, enum ibv_advise_mr_advice advice,
			 uint32_t flags, const struct ibv_sge *sg_list, uint32_t num_sges);
	int (*alloc_mw)(struct rdma_kernel *kernel, struct ibv_mw *mw, struct ibv_pd *pd, enum ibv_mw_type type,
			const struct rdma_udata *udata);
	int (*dealloc_mw)(struct rdma_kernel *kernel, struct ibv_mw *mw);

	/* --- completion channels, from which the core reads the events: ibv_create_comp_channel --- */
	int (*create_comp_channel)(struct rdma_kernel *kernel, struct ibv_comp_channel *channel,
				   struct ibv_context *context);
	/* EBUSY while a CQ uses the channel. */
	int (*destroy_comp_channel)(struct rdma_kernel *kernel, struct ibv_comp_channel *channel);

	/* --- completion queues --- */

	/* ibv_cmd_create_cq_ex. Reads cqe, cq_context, channel and comp_vector of `attr`; asks the kernel for timestamps if
	 * wc_flags has one, and to ignore overruns if `flags` says so. Sets cq->cqe to the actual number. The kernel knows
	 * nothing of the other bits of wc_flags, flags and comp_mask: the provider checks them. */
	int (*create_cq)(struct rdma_kernel *kernel, struct ibv_cq *cq, struct ibv_context *context,
			 const struct ibv_cq_init_attr_ex *attr, const struct rdma_udata *udata);
	/* ibv_cmd_resize_cq. Sets cq->cqe. */
	int (*resize_cq)(struct rdma_kernel *kernel, struct ibv_cq *cq, int cqe, const struct rdma_udata *udata);
	/* ibv_cmd_req_notify_cq, for a device without a CQ doorbell. May be called from the data path. */
	int (*req_notify_cq)(struct rdma_kernel *kernel, struct ibv_cq *cq, int solicited_only);
	int (*destroy_cq)(struct rdma_kernel *kernel, struct ibv_cq *cq);

	/* --- shared receive queues of type IBV_SRQT_BASIC --- */

	/* ibv_cmd_create_srq_ex. EOPNOTSUPP for another srq_type. Writes the actual limits to attr->attr, and the SRQN to
	 * *srq_num, unless NULL: 0 from a kernel that does not report it. */
	int (*create_srq_ex)(struct rdma_kernel *kernel, struct ibv_srq *srq, struct ibv_context *context,
			     struct ibv_srq_init_attr_ex *attr, uint32_t *srq_num, const struct rdma_udata *udata);
	int (*modify_srq)(struct rdma_kernel *kernel, struct ibv_srq *srq, const struct ibv_srq_attr *attr, int mask,
			  const struct rdma_udata *udata);
	int (*query_srq)(struct rdma_kernel *kernel, struct ibv_srq *srq, struct ibv_srq_attr *attr);
	int (*destroy_srq)(struct rdma_kernel *kernel, struct ibv_srq *srq);

	/* --- queue pairs --- */

	/* ibv_cmd_create_qp_ex2, for queue pairs with a PD and two CQs. Sets qp_num, and writes the actual limits to attr->cap;
	 * with a shared receive queue the kernel gets 0 for max_recv_wr and max_recv_sge. create_flags go to the kernel (Linux
	 * 5.8, else EOPNOTSUPP). EOPNOTSUPP for IBV_QP_INIT_ATTR_XRCD and IBV_QP_INIT_ATTR_IND_TABLE; the other bits of
	 * comp_mask belong to the provider and its private data. */
	int (*create_qp_ex)(struct rdma_kernel *kernel, struct ibv_qp_ex *qp, struct ibv_context *context,
			    struct ibv_qp_init_attr_ex *attr, const struct rdma_udata *udata);
	/* ibv_cmd_modify_qp. The kernel checks the transition. Keeps qp->state true. */
	int (*modify_qp)(struct rdma_kernel *kernel, struct ibv_qp *qp, const struct ibv_qp_attr *attr, int mask,
			 const struct rdma_udata *udata);
	/* ibv_cmd_query_qp. Keeps qp->state true if the mask has IBV_QP_STATE. */
	int (*query_qp)(struct rdma_kernel *kernel, struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask,
			struct ibv_qp_init_attr *init);
	int (*destroy_qp)(struct rdma_kernel *kernel, struct ibv_qp *qp);

	/* --- address handles and multicast: ibv_cmd_create_ah, ibv_cmd_attach_mcast --- */
	int (*create_ah)(struct rdma_kernel *kernel, struct ibv_ah *ah, struct ibv_pd *pd,
			 const struct ibv_ah_attr *attr, const struct rdma_udata *udata);
	int (*destroy_ah)(struct rdma_kernel *kernel, struct ibv_ah *ah);
	int (*attach_mcast)(struct rdma_kernel *kernel, struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
	int (*detach_mcast)(struct rdma_kernel *kernel, struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid);
};

/* The functions of this core, or NULL where it has none (an older core, or a core without kernel devices). */
static inline const struct rdma_kernel_ops *rdma_kernel_ops_of(const struct rdma_core *core)
{
	return core && RDMA_PROVIDES(core, kernel) ? core->kernel : NULL;
}

/* Private data from two structs of the driver, either of which may be NULL with a length of 0. */
static inline struct rdma_udata rdma_udata_of(const void *in, size_t in_len, void *out, size_t out_len)
{
	struct rdma_udata udata;

	memset(&udata, 0, sizeof(udata));
	udata.size = sizeof(udata);
	udata.in_len = (uint32_t)in_len;
	udata.out_len = (uint32_t)out_len;
	udata.in = in;
	udata.out = out;
	return udata;
}

#ifdef __cplusplus
}
#endif

#endif
