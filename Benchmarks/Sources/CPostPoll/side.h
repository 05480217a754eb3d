/*
 * One queue pair of a provider, created through libibverbs or through the provider ABI (rdma_provider.h) with the
 * program as the core; and the data-path calls to compare. Programs define DEPTH, the depth of each queue.
 */
#ifndef POST_POLL_SIDE_H
#define POST_POLL_SIDE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <rdma/ib_user_ioctl_verbs.h>

#include "rdma_provider.h"

#define OPERATIONS (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE)

static void must(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "post-poll: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- creation of the objects ----------------------------------------------------------------------------------- */

/* A provider, and a queue pair that is connected to itself. */
struct side {
	struct ibv_context *context;
	struct ibv_mr *region;
	struct ibv_cq *sent, *received;
	struct ibv_cq_ex *sent_ex; /* null if the provider does not support it */
	struct ibv_qp *qp;
	struct ibv_qp_ex *qp_ex; /* null if the provider does not support it */
	int (*modify)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
	int outstanding; /* completions that are not yet polled */
};

/* The provider that is being measured. */
static struct side *current;

static char memory[4096] __attribute__((aligned(4096)));

static struct ibv_cq_init_attr_ex cq_attr = {.cqe = DEPTH, .wc_flags = IBV_WC_STANDARD_FLAGS};

/* The room for inline data that queue pairs ask for. */
static uint32_t max_inline_data = 128;

static struct ibv_qp_init_attr_ex qp_attr(struct ibv_pd *pd, int is_extended)
{
	return (struct ibv_qp_init_attr_ex){
		.send_cq = current->sent,
		.recv_cq = current->received,
		.cap = {.max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 4, .max_recv_sge = 4,
			.max_inline_data = max_inline_data},
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | (is_extended ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
		.pd = pd,
		.send_ops_flags = is_extended ? OPERATIONS : 0,
	};
}

static const int all_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			      IBV_ACCESS_REMOTE_ATOMIC;

/* is_extended: with an ibv_qp_ex for work request builders, and an ibv_cq_ex. */
static void open_by_libibverbs(struct ibv_device *device, int is_extended)
{
	struct ibv_qp_init_attr_ex attr;
	struct ibv_pd *pd;

	must(!!(current->context = ibv_open_device(device)), "open");
	must(!!(pd = ibv_alloc_pd(current->context)), "PD");
	must(!!(current->region = ibv_reg_mr(pd, memory, sizeof(memory), all_access)), "MR");
	if (is_extended) {
		must(!!(current->sent_ex = ibv_create_cq_ex(current->context, &cq_attr)), "CQ");
		current->sent = ibv_cq_ex_to_cq(current->sent_ex);
	} else {
		must(!!(current->sent = ibv_create_cq(current->context, DEPTH, NULL, NULL, 0)), "CQ");
	}
	must(!!(current->received = ibv_create_cq(current->context, DEPTH, NULL, NULL, 0)), "CQ");
	attr = qp_attr(pd, is_extended);
	must(!!(current->qp = ibv_create_qp_ex(current->context, &attr)), "QP");
	if (is_extended)
		current->qp_ex = ibv_qp_to_qp_ex(current->qp);
	current->modify = ibv_modify_qp;
}

static void log_message(enum rdma_log_level level, const char *provider, const char *message)
{
	fprintf(stderr, "%s: %s\n", provider, message);
}

/* The driver ID and ABI version of the kernel driver of a device. */
struct driver {
	uint32_t id, abi;
};

/* A struct rdma_device for `device`; its ibv_device is followed by the zeroed memory that the provider ABI requires. */
static struct rdma_device *describe(struct ibv_device *device, struct driver driver)
{
	static struct rdma_device described;
	static struct {
		struct ibv_device device;
		char room[1024];
	} copy;
	char path[IBV_SYSFS_NAME_MAX + 32];
	struct stat node;

	copy.device = *device;
	snprintf(path, sizeof(path), "/dev/infiniband/%s", device->dev_name);
	must(stat(path, &node) == 0, path);
	described = (struct rdma_device){.size = sizeof(described), .kind = RDMA_DEVICE_KERNEL,
					 .device = &copy.device, .node_guid = ibv_get_device_guid(device),
					 .driver_id = driver.id, .kernel_abi = driver.abi, .uverbs_abi = 6,
					 .uverbs_dev = node.st_rdev};
	return &described;
}

static void open_by_module(const char *path, struct ibv_device *device, struct driver driver, int is_extended)
{
	static const struct rdma_core core = {.size = sizeof(core), .abi_major = RDMA_PROVIDER_ABI_MAJOR,
					      .abi_minor = RDMA_PROVIDER_ABI_MINOR, .version = "0", .log = log_message};
	struct rdma_reason why = {.size = sizeof(why)};
	const struct rdma_open_attr attr_of_open = {.size = sizeof(attr_of_open), .cmd_fd = -1};
	struct rdma_context opened = {.size = sizeof(opened)};
	const struct rdma_context_ops *ops;
	const struct rdma_provider *provider;
	rdma_provider_entry_function *entry;
	struct ibv_qp_init_attr_ex attr;
	struct ibv_pd *pd;
	void *module = dlopen(path, RTLD_NOW);

	must(!!module, path);
	must(!!(entry = (rdma_provider_entry_function *)dlsym(module, RDMA_PROVIDER_ENTRY_SYMBOL)), "entry");
	must(!!(provider = entry(&core, &why)), why.text);
	errno = provider->open_device(describe(device, driver), &attr_of_open, &opened, &why);
	must(errno == 0, why.text);
	current->context = opened.context;
	ops = opened.ops;
	must(!!(pd = ops->alloc_pd(current->context)), "PD");
	current->region = ops->reg_mr(pd, memory, sizeof(memory), (uintptr_t)memory, all_access);
	must(!!current->region, "MR");
	if (is_extended) {
		must(!!(current->sent_ex = ops->create_cq_ex(current->context, &cq_attr)), "CQ");
		current->sent = ibv_cq_ex_to_cq(current->sent_ex);
	} else {
		must(!!(current->sent = ops->create_cq(current->context, DEPTH, NULL, NULL, 0)), "CQ");
	}
	must(!!(current->received = ops->create_cq(current->context, DEPTH, NULL, NULL, 0)), "CQ");
	attr = qp_attr(pd, is_extended);
	must(!!(current->qp = ops->create_qp_ex(current->context, &attr)), "QP");
	if (is_extended)
		current->qp_ex = ops->qp_to_qp_ex(current->qp);
	current->modify = ops->modify_qp;
}

/* Brings the queue pair to RTS. `address` is its own address. */
static void connect_to_itself(struct ibv_ah_attr address)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = all_access};

	must(!current->modify(current->qp, &attr,
			      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = IBV_MTU_1024;
	attr.dest_qp_num = current->qp->qp_num;
	attr.max_dest_rd_atomic = 16;
	attr.min_rnr_timer = 12;
	attr.ah_attr = address;
	attr.ah_attr.port_num = 1;
	must(!current->modify(current->qp, &attr,
			      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "RTR");
	attr.qp_state = IBV_QPS_RTS;
	attr.timeout = 14;
	attr.retry_cnt = 7;
	attr.rnr_retry = 7;
	attr.max_rd_atomic = 16;
	must(!current->modify(current->qp, &attr,
			      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), "RTS");
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

static struct ibv_sge sges[4];
static struct ibv_send_wr sends[16];
static struct ibv_recv_wr receives[16];
static struct ibv_wc completions[16];
static uint64_t seen;

/* A list of `count` work requests, each of 16 bytes in `num_sge` SGEs. */
static void prepare(enum ibv_wr_opcode opcode, unsigned int flags, int count, int num_sge)
{
	for (int i = 0; i < 4; i++)
		sges[i] = (struct ibv_sge){.addr = (uintptr_t)memory, .length = 16 / num_sge, .lkey = current->region->lkey};
	if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		sges[0].length = 8;
	for (int i = 0; i < count; i++) {
		sends[i] = (struct ibv_send_wr){.wr_id = i, .next = i + 1 < count ? &sends[i + 1] : NULL,
						.sg_list = sges, .num_sge = num_sge, .opcode = opcode,
						.send_flags = flags | IBV_SEND_SIGNALED};
		if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
			sends[i].wr.atomic.remote_addr = (uintptr_t)memory + 1024;
			sends[i].wr.atomic.rkey = current->region->rkey;
		} else {
			sends[i].wr.rdma.remote_addr = (uintptr_t)memory + 1024;
			sends[i].wr.rdma.rkey = current->region->rkey;
		}
		receives[i] = (struct ibv_recv_wr){.wr_id = i, .next = i + 1 < count ? &receives[i + 1] : NULL,
						   .sg_list = sges, .num_sge = num_sge};
	}
}

static int post(void)
{
	struct ibv_send_wr *bad;

	return ibv_post_send(current->qp, sends, &bad);
}

static int receive(void)
{
	struct ibv_recv_wr *bad;

	return ibv_post_recv(current->qp, receives, &bad);
}

static int poll_1(void) { return ibv_poll_cq(current->sent, 1, completions) != 1; }
static int poll_16(void) { return ibv_poll_cq(current->sent, 16, completions) != 16; }
static int poll_empty(void) { return ibv_poll_cq(current->sent, 16, completions) != 0; }

static int build_send(void)
{
	struct ibv_qp_ex *qp_ex = current->qp_ex;

	ibv_wr_start(qp_ex);
	qp_ex->wr_id = 1;
	qp_ex->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send(qp_ex);
	ibv_wr_set_sge(qp_ex, current->region->lkey, (uintptr_t)memory, 16);
	return ibv_wr_complete(qp_ex);
}

static int build_inline(void)
{
	struct ibv_qp_ex *qp_ex = current->qp_ex;

	ibv_wr_start(qp_ex);
	qp_ex->wr_id = 1;
	qp_ex->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
	ibv_wr_rdma_write(qp_ex, current->region->rkey, (uintptr_t)memory + 1024);
	ibv_wr_set_inline_data(qp_ex, memory, 16);
	return ibv_wr_complete(qp_ex);
}

static int poll_extended(int count)
{
	struct ibv_poll_cq_attr attr = {};
	struct ibv_cq_ex *sent = current->sent_ex;
	int error = ibv_start_poll(sent, &attr);

	if (error)
		return error;
	for (int i = 1;; i++) {
		seen += sent->wr_id + ibv_wc_read_opcode(sent) + ibv_wc_read_byte_len(sent);
		if (i == count)
			break;
		error = ibv_next_poll(sent);
		if (error)
			break;
	}
	ibv_end_poll(sent);
	return error;
}

static int poll_extended_1(void) { return poll_extended(1); }
static int poll_extended_16(void) { return poll_extended(16); }

struct test {
	const char *name;
	int (*call)(void);
	enum ibv_wr_opcode opcode;
	unsigned int flags;
	int count, num_sge;
	int posts, receives, polls; /* the work requests or completions that the call adds to or removes from a queue */
	int needs_extended;
};

static const struct test tests[] = {
	{"post-send", post, IBV_WR_SEND, 0, 1, 1, 1},
	{"post-send-inline", post, IBV_WR_SEND, IBV_SEND_INLINE, 1, 1, 1},
	{"post-write", post, IBV_WR_RDMA_WRITE, 0, 1, 1, 1},
	{"post-read", post, IBV_WR_RDMA_READ, 0, 1, 1, 1},
	{"post-fetch-add", post, IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 1, 1, 1},
	{"post-send-4-sge", post, IBV_WR_SEND, 0, 1, 4, 1},
	{"post-16-sends", post, IBV_WR_SEND, 0, 16, 1, 16},
	{"post-16-inline", post, IBV_WR_SEND, IBV_SEND_INLINE, 16, 1, 16},
	{"post-receive", receive, IBV_WR_SEND, 0, 1, 1, 0, 1},
	{"post-16-receives", receive, IBV_WR_SEND, 0, 16, 1, 0, 16},
	{"poll-1", poll_1, IBV_WR_RDMA_WRITE, 0, 1, 1, 0, 0, 1},
	{"poll-16", poll_16, IBV_WR_RDMA_WRITE, 0, 16, 1, 0, 0, 16},
	{"poll-empty", poll_empty, IBV_WR_RDMA_WRITE, 0, 1, 1},
	{"wr-send", build_send, IBV_WR_SEND, 0, 1, 1, 1, 0, 0, 1},
	{"wr-write-inline", build_inline, IBV_WR_RDMA_WRITE, 0, 1, 1, 1, 0, 0, 1},
	{"start-poll-1", poll_extended_1, IBV_WR_RDMA_WRITE, 0, 1, 1, 0, 0, 1, 1},
	{"start-poll-16", poll_extended_16, IBV_WR_RDMA_WRITE, 0, 16, 1, 0, 0, 16, 1},
};

/* Waits for all completions. */
static void drain(void)
{
	struct ibv_wc wc;

	while (current->outstanding > 0) {
		int n = ibv_poll_cq(current->sent, 1, &wc);

		if (n == 0)
			n = ibv_poll_cq(current->received, 1, &wc);
		must(n >= 0 && (n == 0 || wc.status == IBV_WC_SUCCESS), "completion");
		current->outstanding -= n;
	}
}

#endif
