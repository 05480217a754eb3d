/* The entry point, opening and closing, and the two tables. */
#include "crxe.h"

/* RXE_UVERBS_ABI_VERSION of the kernel's driver. */
#define CRXE_KERNEL_ABI 2

const struct rdma_core *crxe_core;
const struct rdma_kernel_ops *crxe_kernel;

int crxe_refuse(int error, const char *why)
{
	return rdma_explain(crxe_core, error, why);
}

void *crxe_fail(int error, const char *why)
{
	if (why)
		crxe_refuse(error, why);
	errno = error;
	return NULL;
}

/* --- queries: the kernel's responses, unchanged --- */

static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t attr_size)
{
	return crxe_kernel->query_device_ex(crxe_node(context), input, attr, attr_size, NULL, NULL);
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t attr_size)
{
	return crxe_kernel->query_port(crxe_node(context), port, attr, attr_size);
}

static int query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
			uint32_t flags, size_t entry_size)
{
	return crxe_kernel->query_gid_ex(crxe_node(context), port, index, entry, flags, entry_size);
}

static ssize_t query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries,
			       uint32_t flags, size_t entry_size)
{
	return crxe_kernel->query_gid_table(crxe_node(context), entries, max_entries, flags, entry_size);
}

static int query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	return crxe_kernel->query_pkey(crxe_node(context), port, index, pkey);
}

/* --- a device that goes --- */

static void async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	if (event->event_type == IBV_EVENT_DEVICE_FATAL)
		__atomic_store_n(&crxe_context(context)->failed, true, __ATOMIC_RELAXED);
}

/* --- opening and closing --- */

static int close_context(struct ibv_context *context)
{
	struct crxe_context *crxe = crxe_context(context);

	rdma_fini_context(context);
	crxe_kernel->close_node(crxe->kernel);
	free(crxe);
	return 0;
}

static const struct rdma_context_ops table = {
	.size = sizeof(table),
	.close_context = close_context,
	.query_device_ex = query_device_ex,
	.query_port = query_port,
	.query_gid_ex = query_gid_ex,
	.query_gid_table = query_gid_table,
	.query_pkey = query_pkey,
	.alloc_pd = crxe_alloc_pd,
	.dealloc_pd = crxe_dealloc_pd,
	.alloc_parent_domain = crxe_alloc_parent_domain,
	.alloc_td = crxe_alloc_td,
	.dealloc_td = crxe_dealloc_td,
	.reg_mr = crxe_reg_mr,
	.dereg_mr = crxe_dereg_mr,
	.create_comp_channel = crxe_create_comp_channel,
	.destroy_comp_channel = crxe_destroy_comp_channel,
	.async_event = async_event,
	.create_cq = crxe_create_cq,
	.create_cq_ex = crxe_create_cq_ex,
	.resize_cq = crxe_resize_cq,
	.destroy_cq = crxe_destroy_cq,
	.create_srq_ex = crxe_create_srq_ex,
	.modify_srq = crxe_modify_srq,
	.query_srq = crxe_query_srq,
	.destroy_srq = crxe_destroy_srq,
	.create_qp_ex = crxe_create_qp_ex,
	.qp_to_qp_ex = crxe_qp_to_qp_ex,
	.modify_qp = crxe_modify_qp,
	.query_qp = crxe_query_qp,
	.destroy_qp = crxe_destroy_qp,
	.create_ah = crxe_create_ah,
	.destroy_ah = crxe_destroy_ah,
	.attach_mcast = crxe_attach_mcast,
	.detach_mcast = crxe_detach_mcast,
};

static void fill_data_path(struct ibv_context_ops *ops)
{
	ops->poll_cq = crxe_poll_cq;
	ops->req_notify_cq = crxe_req_notify_cq;
	ops->post_send = crxe_post_send;
	ops->post_recv = crxe_post_recv;
	ops->post_srq_recv = crxe_post_srq_recv;
	ops->alloc_mw = crxe_alloc_mw;
	ops->dealloc_mw = crxe_dealloc_mw;
	ops->bind_mw = crxe_bind_mw;
}

static int probe_device(const struct rdma_device *device, struct rdma_reason *why)
{
	if (device->kind == RDMA_DEVICE_KERNEL &&
	    (device->driver_id == RDMA_DRIVER_RXE || device->driver_id == RDMA_DRIVER_ID_UNKNOWN))
		return 0;
	rdma_set_reason(why, "crxe supports devices of the kernel driver rdma_rxe only");
	return ENODEV;
}

static int open_device(const struct rdma_device *device, const struct rdma_open_attr *attr, struct rdma_context *opened,
		       struct rdma_reason *why)
{
	struct rdma_kernel_context response = { .size = sizeof(response) };
	struct crxe_context *crxe;
	int error = probe_device(device, why);

	if (error)
		return error;
	crxe = calloc(1, sizeof(*crxe));
	if (!crxe)
		return ENOMEM;
	error = crxe_kernel->open_node(device, attr, RDMA_DRIVER_RXE, &crxe->kernel, why);
	if (error)
		goto free_context;
	/* rdma_rxe has no private data for a context. */
	error = crxe_kernel->get_context(crxe->kernel, NULL, &response, why);
	if (error)
		goto close_node;
	opened->context = rdma_init_context(&crxe->verbs, device->device, response.cmd_fd, response.async_fd,
					    response.num_comp_vectors);
	opened->ops = &table;
	fill_data_path(&opened->context->ops);
	return 0;

close_node:
	crxe_kernel->close_node(crxe->kernel);
free_context:
	free(crxe);
	return error;
}

static const struct rdma_provider provider = {
	.size = sizeof(provider),
	.abi_major = RDMA_PROVIDER_ABI_MAJOR,
	.abi_minor = RDMA_PROVIDER_ABI_MINOR,
	.name = "crxe",
	.version = "1.0",
	.vendor = "swift-rdma",
	.kernel_abi_min = CRXE_KERNEL_ABI,
	.kernel_abi_max = CRXE_KERNEL_ABI,
	.probe_device = probe_device,
	.open_device = open_device,
};

__attribute__((visibility("default"))) rdma_provider_entry_function rdma_provider_entry;

const struct rdma_provider *rdma_provider_entry(const struct rdma_core *core, struct rdma_reason *why)
{
	const struct rdma_kernel_ops *kernel = rdma_kernel_ops_of(core);

	if (crxe_core)
		return &provider;
	/* Version 1.0 freezes the ABI: before it, minor versions differ too. */
	if (core->abi_major != RDMA_PROVIDER_ABI_MAJOR || core->abi_minor < RDMA_PROVIDER_ABI_MINOR) {
		rdma_set_reason(why, "crxe needs a later version of the provider ABI: update the core");
		return NULL;
	}
	/* The last function that this provider calls. */
	if (!kernel || !RDMA_PROVIDES(kernel, detach_mcast)) {
		rdma_set_reason(why, "crxe needs the uverbs commands of the core (rdma_core.kernel): update the core");
		return NULL;
	}
	crxe_core = core;
	crxe_kernel = kernel;
	return &provider;
}
