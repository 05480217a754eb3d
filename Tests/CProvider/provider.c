/* provider.c - the entry point, the control table, and opening and closing of contexts */
#define _DEFAULT_SOURCE /* htobe64 of <endian.h> */
#include "ctest.h"

#include <endian.h>
#include <stdio.h>

static const struct rdma_core *the_core;

static int close_context(struct ibv_context *verbs)
{
	struct ctest_context *context = ctest_context(verbs);

	ctest_queue_fini(&context->events);
	rdma_fini_context(verbs);
	free(context);
	return 0;
}

static const struct rdma_context_ops table = {
	.size = sizeof(table),
	.close_context = close_context,
	.query_device_ex = ctest_query_device_ex,
	.query_port = ctest_query_port,
	.query_gid_ex = ctest_query_gid_ex,
	.query_gid_table = ctest_query_gid_table,
	.query_pkey = ctest_query_pkey,
	.alloc_pd = ctest_alloc_pd,
	.dealloc_pd = ctest_dealloc_pd,
	.reg_mr = ctest_reg_mr,
	.dereg_mr = ctest_dereg_mr,
	.create_comp_channel = ctest_create_comp_channel,
	.destroy_comp_channel = ctest_destroy_comp_channel,
	.get_cq_event = ctest_get_cq_event,
	.get_async_event = ctest_get_async_event,
	.create_cq = ctest_create_cq,
	.create_cq_ex = ctest_create_cq_ex,
	.destroy_cq = ctest_destroy_cq,
	.create_srq_ex = ctest_create_srq_ex,
	.modify_srq = ctest_modify_srq,
	.query_srq = ctest_query_srq,
	.destroy_srq = ctest_destroy_srq,
	.create_qp_ex = ctest_create_qp_ex,
	.qp_to_qp_ex = ctest_qp_to_qp_ex,
	.modify_qp = ctest_modify_qp,
	.query_qp = ctest_query_qp,
	.destroy_qp = ctest_destroy_qp,
	.create_ah = ctest_create_ah,
	.destroy_ah = ctest_destroy_ah,
	.attach_mcast = ctest_attach_mcast,
	.detach_mcast = ctest_detach_mcast,
};

/* One loopback device, or as many as the variable CTEST_DEVICES says. They exist in every process. */
static int list_devices(struct rdma_software_device *devices, size_t stride, uint32_t capacity, uint32_t *count)
{
	const char *wanted = NULL;
	long number = 1;

	if (!RDMA_PROVIDES(the_core, flags) || !(the_core->flags & RDMA_CORE_RAISED_PRIVILEGES))
		wanted = getenv("CTEST_DEVICES");
	if (wanted)
		number = strtol(wanted, NULL, 10);
	if (number < 0 || number > CTEST_MAX_DEVICES)
		return rdma_explain(the_core, EINVAL, "CTEST_DEVICES must be a number from 0 to 64");
	for (uint64_t index = 0; index < (uint64_t)number; index++) {
		struct rdma_software_device device = {
			.location = "memory of this process",
			.node_type = IBV_NODE_CA,
			.transport_type = IBV_TRANSPORT_IB,
			.node_guid = htobe64(0x0002c90300123456 + index),
			.cookie = index,
		};

		snprintf(device.name, sizeof(device.name), "ctest%u", (unsigned int)index);
		rdma_add_software_device(devices, stride, capacity, count, &device);
	}
	return 0;
}

static int probe_device(const struct rdma_device *device, struct rdma_reason *why)
{
	if (!strncmp(device->device->name, "ctest", 5))
		return 0;
	rdma_set_reason(why, "is not a ctest device: it serves devices whose names begin with \"ctest\"");
	return ENODEV;
}

static int open_device(const struct rdma_device *device, const struct rdma_open_attr *attr,
		       struct rdma_context *opened, struct rdma_reason *why)
{
	struct ctest_context *context = calloc(1, sizeof(*context));
	char line[128];
	int error = context ? ctest_queue_init(&context->events) : ENOMEM;

	if (!error && attr->cmd_fd != -1) {
		ctest_queue_fini(&context->events);
		error = EOPNOTSUPP;
	}
	/* Room for the events of the port and the device. Each object reserves room for its own when it is created. */
	if (!error && (error = ctest_queue_reserve(&context->events, 32)))
		ctest_queue_fini(&context->events);
	if (error) {
		rdma_set_reason(why, error == EOPNOTSUPP ? "it does not import contexts of other processes" :
							   "no memory or no descriptor left for a context");
		free(context);
		return error;
	}
	context->guid = device->node_guid;
	ctest_fill_gids(context);
	opened->context = rdma_init_context(&context->verbs, device->device, -1, context->events.fd, 1);
	opened->context->ops.poll_cq = ctest_poll_cq;
	opened->context->ops.req_notify_cq = ctest_req_notify_cq;
	opened->context->ops.post_srq_recv = ctest_post_srq_recv;
	opened->context->ops.post_send = ctest_post_send;
	opened->context->ops.post_recv = ctest_post_recv;
	opened->ops = &table;

	snprintf(line, sizeof(line), "opened %s", device->device->name);
	the_core->log(RDMA_LOG_DEBUG, "ctest", line);
	return 0;
}

static const struct rdma_provider provider = {
	.size = sizeof(provider),
	.abi_major = RDMA_PROVIDER_ABI_MAJOR,
	.abi_minor = RDMA_PROVIDER_ABI_MINOR,
	.name = "ctest",
	.version = "1.0",
	.vendor = "swift-rdma tests",
	.kernel_abi_min = 0,
	.kernel_abi_max = UINT32_MAX,
	.list_devices = list_devices,
	.probe_device = probe_device,
	.open_device = open_device,
};

/* The only symbol that the library exports. */
__attribute__((visibility("default"))) rdma_provider_entry_function rdma_provider_entry;

const struct rdma_provider *rdma_provider_entry(const struct rdma_core *core, struct rdma_reason *why)
{
	if (!RDMA_PROVIDES(core, log) || core->abi_major != RDMA_PROVIDER_ABI_MAJOR ||
	    core->abi_minor < RDMA_PROVIDER_ABI_MINOR) {
		rdma_set_reason(why, "needs a core with provider ABI 0.9 or later");
		return NULL;
	}
	the_core = core;
	return &provider;
}
