/*
 * The data path of one provider on the kernel's rxe0, for `valgrind --tool=callgrind --collect-atstart=no`: instructions
 * are counted in the calls that are compared, and nowhere else. Benchmarks/post-poll-rxe runs it.
 *
 *	post-poll-rxe libibverbs         the device through libibverbs and its provider
 *	post-poll-rxe MODULE.so          through a provider of rdma_provider.h, to which this program is the core
 *
 * The queue pair is connected to itself. Each case runs ROUNDS times over the provider, which makes one dump of
 * callgrind's with the name of the case, and then over functions that do nothing, which makes another: the loop itself.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <rdma/ib_user_ioctl_verbs.h>
#include <valgrind/callgrind.h>

#include "rdma_provider.h"

#define ROUNDS 10
#define DEPTH 64
#define OPERATIONS (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE)

static void must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "post-poll-rxe: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- what is made, by either way ------------------------------------------------------------------------------- */

static struct ibv_context *context;
static struct ibv_mr *region;
static struct ibv_cq_ex *sent, *received;
static struct ibv_qp *qp;
static struct ibv_qp_ex *qp_ex;
static char memory[4096] __attribute__((aligned(4096)));
static int (*modify)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);

static struct ibv_cq_init_attr_ex cq_attr = {.cqe = DEPTH, .wc_flags = IBV_WC_STANDARD_FLAGS};

static struct ibv_qp_init_attr_ex qp_attr(struct ibv_pd *pd)
{
	return (struct ibv_qp_init_attr_ex){
		.send_cq = ibv_cq_ex_to_cq(sent),
		.recv_cq = ibv_cq_ex_to_cq(received),
		.cap = {.max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 4, .max_recv_sge = 4,
			.max_inline_data = 128},
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = OPERATIONS,
	};
}

static const int all_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			      IBV_ACCESS_REMOTE_ATOMIC;

static void open_by_libibverbs(struct ibv_device *device)
{
	struct ibv_qp_init_attr_ex attr;
	struct ibv_pd *pd;

	must(!!(context = ibv_open_device(device)), "open");
	must(!!(pd = ibv_alloc_pd(context)), "PD");
	must(!!(region = ibv_reg_mr(pd, memory, sizeof(memory), all_access)), "MR");
	must(!!(sent = ibv_create_cq_ex(context, &cq_attr)), "CQ");
	must(!!(received = ibv_create_cq_ex(context, &cq_attr)), "CQ");
	attr = qp_attr(pd);
	must(!!(qp = ibv_create_qp_ex(context, &attr)), "QP");
	qp_ex = ibv_qp_to_qp_ex(qp);
	modify = ibv_modify_qp;
}

static void say(enum rdma_log_level level, const char *provider, const char *message)
{
	fprintf(stderr, "%s: %s\n", provider, message);
}

/* A device as the core describes it, with the zeroed room that the waist asks for. */
static struct rdma_device *describe(struct ibv_device *device)
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
					 .driver_id = RDMA_DRIVER_RXE, .kernel_abi = 2, .uverbs_abi = 6,
					 .uverbs_dev = node.st_rdev};
	return &described;
}

static void open_by_module(const char *path, struct ibv_device *device)
{
	static const struct rdma_core core = {.size = sizeof(core), .abi_major = RDMA_PROVIDER_ABI_MAJOR,
					      .abi_minor = RDMA_PROVIDER_ABI_MINOR, .version = "0", .log = say};
	struct rdma_reason why = {.size = sizeof(why)};
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
	errno = provider->open_device(describe(device), &opened, &why);
	must(errno == 0, why.text);
	context = opened.context;
	ops = opened.ops;
	must(!!(pd = ops->alloc_pd(context)), "PD");
	region = ops->reg_mr(pd, memory, sizeof(memory), (uintptr_t)memory, all_access);
	must(!!region, "MR");
	must(!!(sent = ops->create_cq_ex(context, &cq_attr)), "CQ");
	must(!!(received = ops->create_cq_ex(context, &cq_attr)), "CQ");
	attr = qp_attr(pd);
	must(!!(qp = ops->create_qp_ex(context, &attr)), "QP");
	qp_ex = ops->qp_to_qp_ex(qp);
	modify = ops->modify_qp;
}

/* The index of the IPv4 address in the GID table, and that GID. */
static int find_gid(struct ibv_device *device, union ibv_gid *gid)
{
	struct ibv_context *asked = ibv_open_device(device);
	struct ibv_gid_entry entry;

	must(!!asked, "open");
	for (int index = 0; index < 16; index++)
		if (ibv_query_gid_ex(asked, 1, index, &entry, 0) == 0 && entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
		    entry.gid.global.subnet_prefix == 0) {
			*gid = entry.gid;
			ibv_close_device(asked);
			return index;
		}
	must(0, "no IPv4 address");
	return 0;
}

static void connect_to_itself(int gid_index, union ibv_gid gid)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = all_access};

	must(!modify(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = IBV_MTU_1024;
	attr.dest_qp_num = qp->qp_num;
	attr.max_dest_rd_atomic = 16;
	attr.min_rnr_timer = 12;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = 1;
	attr.ah_attr.grh.dgid = gid;
	attr.ah_attr.grh.sgid_index = gid_index;
	attr.ah_attr.grh.hop_limit = 64;
	must(!modify(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "RTR");
	attr.qp_state = IBV_QPS_RTS;
	attr.timeout = 14;
	attr.retry_cnt = 7;
	attr.rnr_retry = 7;
	attr.max_rd_atomic = 16;
	must(!modify(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), "RTS");
}

/* ---- what is counted --------------------------------------------------------------------------------------------- */

static struct ibv_sge elements[4];
static struct ibv_send_wr sends[16];
static struct ibv_recv_wr receives[16];
static struct ibv_wc completions[16];
static int outstanding; /* completions that are still to come */
static uint64_t seen;

/* A chain of `count` requests, each of 16 bytes in `pieces`. */
static void prepare(enum ibv_wr_opcode opcode, unsigned int flags, int count, int pieces)
{
	for (int i = 0; i < 4; i++)
		elements[i] = (struct ibv_sge){.addr = (uintptr_t)memory, .length = 16 / pieces, .lkey = region->lkey};
	if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		elements[0].length = 8;
	for (int i = 0; i < count; i++) {
		sends[i] = (struct ibv_send_wr){.wr_id = i, .next = i + 1 < count ? &sends[i + 1] : NULL,
						.sg_list = elements, .num_sge = pieces, .opcode = opcode,
						.send_flags = flags | IBV_SEND_SIGNALED};
		if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
			sends[i].wr.atomic.remote_addr = (uintptr_t)memory + 1024;
			sends[i].wr.atomic.rkey = region->rkey;
		} else {
			sends[i].wr.rdma.remote_addr = (uintptr_t)memory + 1024;
			sends[i].wr.rdma.rkey = region->rkey;
		}
		receives[i] = (struct ibv_recv_wr){.wr_id = i, .next = i + 1 < count ? &receives[i + 1] : NULL,
						   .sg_list = elements, .num_sge = pieces};
	}
}

static int post(void)
{
	struct ibv_send_wr *bad;

	return ibv_post_send(qp, sends, &bad);
}

static int receive(void)
{
	struct ibv_recv_wr *bad;

	return ibv_post_recv(qp, receives, &bad);
}

static int poll_1(void) { return ibv_poll_cq(ibv_cq_ex_to_cq(sent), 1, completions) != 1; }
static int poll_16(void) { return ibv_poll_cq(ibv_cq_ex_to_cq(sent), 16, completions) != 16; }
static int poll_empty(void) { return ibv_poll_cq(ibv_cq_ex_to_cq(sent), 16, completions) != 0; }

static int build_send(void)
{
	ibv_wr_start(qp_ex);
	qp_ex->wr_id = 1;
	qp_ex->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send(qp_ex);
	ibv_wr_set_sge(qp_ex, region->lkey, (uintptr_t)memory, 16);
	return ibv_wr_complete(qp_ex);
}

static int build_inline(void)
{
	ibv_wr_start(qp_ex);
	qp_ex->wr_id = 1;
	qp_ex->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
	ibv_wr_rdma_write(qp_ex, region->rkey, (uintptr_t)memory + 1024);
	ibv_wr_set_inline_data(qp_ex, memory, 16);
	return ibv_wr_complete(qp_ex);
}

static int look(int count)
{
	struct ibv_poll_cq_attr attr = {};
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

static int look_1(void) { return look(1); }
static int look_16(void) { return look(16); }

struct test {
	const char *name;
	int (*call)(void);
	enum ibv_wr_opcode opcode;
	unsigned int flags;
	int count, pieces;
	int posts, receives, polls; /* what the call adds to a queue, or takes from one */
};

static const struct test tests[] = {
	{"post-send", post, IBV_WR_SEND, 0, 1, 1, 1},
	{"post-send-inline", post, IBV_WR_SEND, IBV_SEND_INLINE, 1, 1, 1},
	{"post-write", post, IBV_WR_RDMA_WRITE, 0, 1, 1, 1},
	{"post-read", post, IBV_WR_RDMA_READ, 0, 1, 1, 1},
	{"post-fetch-add", post, IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 1, 1, 1},
	{"post-send-4-pieces", post, IBV_WR_SEND, 0, 1, 4, 1},
	{"post-16-sends", post, IBV_WR_SEND, 0, 16, 1, 16},
	{"post-16-inline", post, IBV_WR_SEND, IBV_SEND_INLINE, 16, 1, 16},
	{"post-receive", receive, IBV_WR_SEND, 0, 1, 1, 0, 1},
	{"post-16-receives", receive, IBV_WR_SEND, 0, 16, 1, 0, 16},
	{"poll-1", poll_1, IBV_WR_RDMA_WRITE, 0, 1, 1, 0, 0, 1},
	{"poll-16", poll_16, IBV_WR_RDMA_WRITE, 0, 16, 1, 0, 0, 16},
	{"poll-empty", poll_empty, IBV_WR_RDMA_WRITE, 0, 1, 1},
	{"wr-send", build_send, IBV_WR_SEND, 0, 1, 1, 1},
	{"wr-write-inline", build_inline, IBV_WR_RDMA_WRITE, 0, 1, 1, 1},
	{"start-poll-1", look_1, IBV_WR_RDMA_WRITE, 0, 1, 1, 0, 0, 1},
	{"start-poll-16", look_16, IBV_WR_RDMA_WRITE, 0, 16, 1, 0, 0, 16},
};

/* Waits for everything that was posted. */
static void drain(void)
{
	struct ibv_wc wc;

	while (outstanding > 0) {
		int n = ibv_poll_cq(ibv_cq_ex_to_cq(sent), 1, &wc);

		if (n == 0)
			n = ibv_poll_cq(ibv_cq_ex_to_cq(received), 1, &wc);
		must(n >= 0 && (n == 0 || wc.status == IBV_WC_SUCCESS), "completion");
		outstanding -= n;
	}
}

static void round_of(const struct test *test)
{
	int messages = test->opcode == IBV_WR_SEND ? test->posts : 0;
	struct ibv_recv_wr *bad;
	int error;

	prepare(test->opcode, test->flags, test->count, test->pieces);
	for (int i = 0; i < messages; i++) {
		struct ibv_recv_wr one = receives[0];

		one.next = NULL;
		must(!ibv_post_recv(qp, &one, &bad), "receive");
	}
	if (test->polls) {
		must(!post(), "post");
		/* Long enough for 16 packets within one host. */
		usleep(100000);
	}
	CALLGRIND_TOGGLE_COLLECT;
	error = test->call();
	CALLGRIND_TOGGLE_COLLECT;
	must(!error, test->name);
	outstanding += test->posts + messages;
	drain();
	if (test->receives) {
		/* Messages that take the receives away again. */
		prepare(IBV_WR_SEND, 0, test->receives, 1);
		must(!post(), "post");
		outstanding += 2 * test->receives;
		drain();
	}
}

/* ---- functions that do nothing ----------------------------------------------------------------------------------- */

static int polled;

static int no_send(struct ibv_qp *q, struct ibv_send_wr *wr, struct ibv_send_wr **bad) { return 0; }
static int no_receive(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad) { return 0; }
static int no_poll(struct ibv_cq *cq, int count, struct ibv_wc *wc) { return polled; }
static void no_start(struct ibv_qp_ex *q) {}
static int no_complete(struct ibv_qp_ex *q) { return 0; }
static void no_write(struct ibv_qp_ex *q, uint32_t key, uint64_t address) {}
static void no_element(struct ibv_qp_ex *q, uint32_t key, uint64_t address, uint32_t length) {}
static void no_inline(struct ibv_qp_ex *q, void *data, size_t length) {}
static int no_first(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attr) { return 0; }
static int no_next(struct ibv_cq_ex *cq) { return 0; }
static void no_end(struct ibv_cq_ex *cq) {}
static enum ibv_wc_opcode no_opcode(struct ibv_cq_ex *cq) { return 0; }
static uint32_t no_length(struct ibv_cq_ex *cq) { return 0; }

static void do_nothing(void)
{
	context->ops.post_send = no_send;
	context->ops.post_recv = no_receive;
	context->ops.poll_cq = no_poll;
	qp_ex->wr_start = qp_ex->wr_send = no_start;
	qp_ex->wr_complete = no_complete;
	qp_ex->wr_rdma_write = no_write;
	qp_ex->wr_set_sge = no_element;
	qp_ex->wr_set_inline_data = no_inline;
	sent->start_poll = no_first;
	sent->next_poll = no_next;
	sent->end_poll = no_end;
	sent->read_opcode = no_opcode;
	sent->read_byte_len = no_length;
}

static void dump(const char *kind, const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %s", kind, name);
	CALLGRIND_DUMP_STATS_AT(text);
}

int main(int argc, char **argv)
{
	struct ibv_device **list, *device = NULL;
	union ibv_gid gid;
	int gid_index;

	must(argc == 2, "usage: post-poll-rxe libibverbs | MODULE.so");
	must(!!(list = ibv_get_device_list(NULL)), "devices");
	for (int i = 0; list[i]; i++)
		if (!strcmp(list[i]->name, "rxe0"))
			device = list[i];
	must(!!device, "there is no rxe0");
	gid_index = find_gid(device, &gid);
	if (!strcmp(argv[1], "libibverbs"))
		open_by_libibverbs(device);
	else
		open_by_module(argv[1], device);
	connect_to_itself(gid_index, gid);

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		/* The first resolves what is resolved late. */
		round_of(&tests[i]);
		dump("warm", tests[i].name);
		for (int round = 0; round < ROUNDS; round++)
			round_of(&tests[i]);
		dump("call", tests[i].name);
	}
	do_nothing();
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		polled = tests[i].polls;
		must(!tests[i].call(), tests[i].name);
		for (int round = 0; round < ROUNDS; round++) {
			CALLGRIND_TOGGLE_COLLECT;
			must(!tests[i].call(), tests[i].name);
			CALLGRIND_TOGGLE_COLLECT;
		}
		dump("none", tests[i].name);
	}
	printf("rounds %d\n", ROUNDS);
	return 0;
}
