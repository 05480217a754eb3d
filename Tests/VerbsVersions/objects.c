/*
 * Built with a verbs.h that grow.py has written: opens a device with a provider that was built with another verbs.h, makes
 * one object of each kind, and checks that the member which its verbs.h does not have reads as 0.
 *
 *   objects PROVIDER.so DEVICE
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "rdma_provider.h"

static void log_message(enum rdma_log_level level, const char *provider, const char *message)
{
	fprintf(stderr, "%d %s: %s\n", (int)level, provider, message);
}

static void fail(const char *what)
{
	fprintf(stderr, "objects: %s\n", what);
	exit(1);
}

/* The member that a later verbs.h added: 0, as for every object of a provider that does not know it. */
#define CHECK(object)                                                                                      \
	do {                                                                                               \
		if (!(object))                                                                             \
			fail(#object " was not made");                                                     \
		if ((object)->grown)                                                                       \
			fail(#object "->grown is not 0");                                                  \
		count++;                                                                                   \
	} while (0)

int main(int argc, char **argv)
{
	static const struct rdma_core core = {
		.size = sizeof(core), .abi_major = RDMA_PROVIDER_ABI_MAJOR, .abi_minor = RDMA_PROVIDER_ABI_MINOR,
		.version = "test", .log = log_message,
	};
	static struct { struct ibv_device device; char room[1024]; } public;
	struct rdma_device device = { .size = sizeof(device), .device = &public.device };
	struct rdma_open_attr open = { .size = sizeof(open), .cmd_fd = -1 };
	struct rdma_context opened = { .size = sizeof(opened) };
	struct rdma_reason why = { .size = sizeof(why) };
	struct ibv_cq_init_attr_ex cq_attr = { .cqe = 16, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN };
	struct ibv_srq_init_attr_ex srq_attr = {
		.attr = { .max_wr = 4, .max_sge = 1 },
		.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD, .srq_type = IBV_SRQT_BASIC,
	};
	struct ibv_qp_init_attr_ex qp_attr = {
		.cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC, .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	};
	struct ibv_ah_attr ah_attr = { .port_num = 1, .is_global = 1, .grh = { .dgid.raw = { 0xfe, 0x80, [15] = 1 } } };
	static char memory[4096];
	rdma_provider_entry_function *entry;
	const struct rdma_provider *provider;
	const struct rdma_context_ops *ops;
	struct ibv_comp_channel *channel;
	struct ibv_srq *srq;
	struct ibv_cq_ex *cq;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_ah *ah;
	struct ibv_qp *qp;
	unsigned int count = 0;
	void *library;

	if (argc != 3)
		fail("usage: objects PROVIDER.so DEVICE");
	library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	if (!library)
		fail(dlerror());
	*(void **)&entry = dlsym(library, RDMA_PROVIDER_ENTRY_SYMBOL);
	provider = entry ? entry(&core, &why) : NULL;
	if (!provider)
		fail(entry ? why.text : "no entry point");
	snprintf(public.device.name, sizeof(public.device.name), "%s", argv[2]);
	if (provider->open_device(&device, &open, &opened, &why))
		fail(why.text);
	ops = opened.ops;

	channel = ops->create_comp_channel(opened.context);
	CHECK(channel);
	pd = ops->alloc_pd(opened.context);
	CHECK(pd);
	mr = ops->reg_mr(pd, memory, sizeof(memory), (uintptr_t)memory, IBV_ACCESS_LOCAL_WRITE);
	CHECK(mr);
	ah = ops->create_ah(pd, &ah_attr);
	CHECK(ah);
	cq_attr.channel = channel;
	cq = ops->create_cq_ex(opened.context, &cq_attr);
	CHECK(cq);
	srq_attr.pd = pd;
	srq = ops->create_srq_ex(opened.context, &srq_attr);
	CHECK(srq);
	qp_attr.pd = pd;
	qp_attr.send_cq = qp_attr.recv_cq = (struct ibv_cq *)cq;
	qp = ops->create_qp_ex(opened.context, &qp_attr);
	CHECK(qp ? ops->qp_to_qp_ex(qp) : NULL);

	if (ops->destroy_qp(qp) || ops->destroy_srq(srq) || ops->destroy_cq((struct ibv_cq *)cq) || ops->destroy_ah(ah) ||
	    ops->dereg_mr(mr) || ops->dealloc_pd(pd) || ops->destroy_comp_channel(channel) ||
	    ops->close_context(opened.context))
		fail("an object was not destroyed");
	printf("%u objects\n", count);
	return 0;
}
