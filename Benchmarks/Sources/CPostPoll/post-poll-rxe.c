/*
 * The data path of one provider on the kernel's rxe0, for `valgrind --tool=callgrind --collect-atstart=no`: counts only
 * the instructions of the calls that are compared. Benchmarks/post-poll-rxe runs it.
 *
 *	post-poll-rxe libibverbs         the device through libibverbs and its provider
 *	post-poll-rxe MODULE.so          through a provider of rdma_provider.h, with this program as the core
 *
 * The queue pair is connected to itself. Each case runs ROUNDS times over the provider, for one callgrind dump with the
 * name of the case, and then over empty functions, for another dump: the instructions of the loop itself.
 */
#include <valgrind/callgrind.h>

#define DEPTH 64
#include "side.h"

#define ROUNDS 10

/* Returns the GID index of the IPv4 address with RoCE v2, and that GID. */
static int find_gid(struct ibv_device *device, union ibv_gid *gid)
{
	struct ibv_context *context = ibv_open_device(device);
	struct ibv_gid_entry entry;

	must(!!context, "open");
	for (int index = 0; index < 16; index++)
		if (ibv_query_gid_ex(context, 1, index, &entry, 0) == 0 && entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
		    entry.gid.global.subnet_prefix == 0) {
			*gid = entry.gid;
			ibv_close_device(context);
			return index;
		}
	must(0, "no IPv4 address");
	return 0;
}

static void round_of(const struct test *test)
{
	int messages = test->opcode == IBV_WR_SEND ? test->posts : 0;
	struct ibv_recv_wr *bad;
	int error;

	prepare(test->opcode, test->flags, test->count, test->num_sge);
	for (int i = 0; i < messages; i++) {
		struct ibv_recv_wr one = receives[0];

		one.next = NULL;
		must(!ibv_post_recv(current->qp, &one, &bad), "receive");
	}
	if (test->polls) {
		must(!post(), "post");
		/* Enough time for 16 packets within one host. */
		usleep(100000);
	}
	CALLGRIND_TOGGLE_COLLECT;
	error = test->call();
	CALLGRIND_TOGGLE_COLLECT;
	must(!error, test->name);
	current->outstanding += test->posts + messages;
	drain();
	if (test->receives) {
		/* Sends messages that consume the posted receives. */
		prepare(IBV_WR_SEND, 0, test->receives, 1);
		must(!post(), "post");
		current->outstanding += 2 * test->receives;
		drain();
	}
}

/* ---- empty functions --------------------------------------------------------------------------------------------- */

static int polled;

static int no_send(struct ibv_qp *q, struct ibv_send_wr *wr, struct ibv_send_wr **bad) { return 0; }
static int no_receive(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad) { return 0; }
static int no_poll(struct ibv_cq *cq, int count, struct ibv_wc *wc) { return polled; }
static void no_start(struct ibv_qp_ex *q) {}
static int no_complete(struct ibv_qp_ex *q) { return 0; }
static void no_write(struct ibv_qp_ex *q, uint32_t key, uint64_t address) {}
static void no_sge(struct ibv_qp_ex *q, uint32_t key, uint64_t address, uint32_t length) {}
static void no_inline(struct ibv_qp_ex *q, void *data, size_t length) {}
static int no_first(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attr) { return 0; }
static int no_next(struct ibv_cq_ex *cq) { return 0; }
static void no_end(struct ibv_cq_ex *cq) {}
static enum ibv_wc_opcode no_opcode(struct ibv_cq_ex *cq) { return 0; }
static uint32_t no_length(struct ibv_cq_ex *cq) { return 0; }

static void use_empty_functions(void)
{
	current->context->ops.post_send = no_send;
	current->context->ops.post_recv = no_receive;
	current->context->ops.poll_cq = no_poll;
	current->qp_ex->wr_start = current->qp_ex->wr_send = no_start;
	current->qp_ex->wr_complete = no_complete;
	current->qp_ex->wr_rdma_write = no_write;
	current->qp_ex->wr_set_sge = no_sge;
	current->qp_ex->wr_set_inline_data = no_inline;
	current->sent_ex->start_poll = no_first;
	current->sent_ex->next_poll = no_next;
	current->sent_ex->end_poll = no_end;
	current->sent_ex->read_opcode = no_opcode;
	current->sent_ex->read_byte_len = no_length;
}

static void dump(const char *kind, const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %s", kind, name);
	CALLGRIND_DUMP_STATS_AT(text);
}

int main(int argc, char **argv)
{
	struct ibv_ah_attr address = {.is_global = 1, .grh.hop_limit = 64};
	struct ibv_device **list, *device = NULL;
	struct side side = {};

	current = &side;
	must(argc == 2, "usage: post-poll-rxe libibverbs | MODULE.so");
	must(!!(list = ibv_get_device_list(NULL)), "devices");
	for (int i = 0; list[i]; i++)
		if (!strcmp(list[i]->name, "rxe0"))
			device = list[i];
	must(!!device, "there is no rxe0");
	address.grh.sgid_index = find_gid(device, &address.grh.dgid);
	if (!strcmp(argv[1], "libibverbs"))
		open_by_libibverbs(device, 1);
	else
		open_by_module(argv[1], device, (struct driver){RDMA_DRIVER_RXE, 2}, 1);
	connect_to_itself(address);

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		/* The first call resolves lazily bound symbols. */
		round_of(&tests[i]);
		dump("warm", tests[i].name);
		for (int round = 0; round < ROUNDS; round++)
			round_of(&tests[i]);
		dump("call", tests[i].name);
	}
	use_empty_functions();
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
