/*
 * The data paths of a native provider and of the vendor's C library on one simulated device, alternately, in one
 * process. Benchmarks/post-poll-simulated runs it, with the simulated device (Sources/Simulator) preloaded.
 *
 *	post-poll-simulated MODULE.so
 *
 * A block is 256 work requests, in one call each or in chains. The device executes them between blocks, which is not
 * timed. Each line of the output is a case: its name, nanoseconds per call of the C library and of the module (medians
 * over the blocks), and the median of the ratios of adjacent blocks, with its quartiles.
 */
#include <time.h>

#define DEPTH 512
#include "side.h"
#include "uverbs_sim.h"

#define BLOCKS 401
#define REQUESTS 256

static const struct uverbs_sim *sim;

static double nanoseconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* Lets the device execute all work requests, and polls every completion. */
static void settle(void)
{
	sim->step(0);
	drain();
}

/* The number of calls in a block. */
static int calls_of(const struct test *test)
{
	int requests = test->posts + test->receives + test->polls;

	return requests ? REQUESTS / requests : REQUESTS;
}

static void post_receives(int count)
{
	struct ibv_recv_wr *bad, one = receives[0];

	one.next = NULL;
	for (int i = 0; i < count; i++)
		must(!ibv_post_recv(current->qp, &one, &bad), "receive");
}

/* Runs one block; returns nanoseconds per call. */
static double block(const struct test *test)
{
	int calls = calls_of(test), is_send = test->opcode == IBV_WR_SEND, error = 0;
	double start, end;

	prepare(test->opcode, test->flags, test->count, test->num_sge);
	if (is_send && test->posts)
		post_receives(calls * test->posts);
	if (test->polls) {
		for (int i = 0; i < calls; i++)
			must(!post(), "post");
		sim->step(0);
	}
	start = nanoseconds();
	for (int i = 0; i < calls; i++)
		error |= test->call();
	end = nanoseconds();
	must(!error, test->name);
	current->outstanding += calls * test->posts * (is_send ? 2 : 1);
	settle();
	if (test->receives) {
		/* Sends messages that consume the posted receives. */
		prepare(IBV_WR_SEND, 0, 1, 1);
		for (int i = 0; i < calls * test->receives; i++)
			must(!post(), "post");
		current->outstanding += 2 * calls * test->receives;
		settle();
	}
	return (end - start) / calls;
}

static int ascending(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static double quantile(double *values, double fraction)
{
	qsort(values, BLOCKS, sizeof(*values), ascending);
	return values[(int)(fraction * (BLOCKS - 1))];
}

static void compare(const struct test *test, struct side *c, struct side *native)
{
	static double c_times[BLOCKS], native_times[BLOCKS], ratios[BLOCKS];

	for (int i = -20; i < BLOCKS; i++) {
		double times[2];

		for (int turn = 0; turn < 2; turn++) {
			int is_native = turn ^ (i & 1);

			current = is_native ? native : c;
			times[is_native] = block(test);
		}
		if (i < 0)
			continue;
		c_times[i] = times[0];
		native_times[i] = times[1];
		ratios[i] = times[1] / times[0];
	}
	printf("%s %.1f %.1f %.3f %.3f %.3f\n", test->name, quantile(c_times, 0.5), quantile(native_times, 0.5),
	       quantile(ratios, 0.5), quantile(ratios, 0.25), quantile(ratios, 0.75));
	fflush(stdout);
}

/* What the programs must know of the simulated devices. */
static const struct kind {
	const char *name;
	struct driver driver;
	uint32_t max_inline_data;
	int has_extended, has_atomics, is_iwarp;
} kinds[] = {
	{"hfi1", {RDMA_DRIVER_HFI1, 2}, 0, 0, 1, 0},
	{"mlx5", {RDMA_DRIVER_MLX5, 1}, 128, 1, 1, 0},
	/* libcxgb4 has no extended objects. */
	{"cxgb4", {RDMA_DRIVER_CXGB4, 3}, 128, 0, 0, 1},
};

static const struct kind *kind_of(const struct ibv_device *device)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strncmp(device->name, kinds[i].name, strlen(kinds[i].name)))
			return &kinds[i];
	must(0, device->name);
	return NULL;
}

/* Brings the queue pair to RTS, connected to itself. The kernel connects those of iWARP. */
static void connect_side(const struct kind *kind, struct ibv_ah_attr address)
{
	if (kind->is_iwarp)
		must(!sim->connect(0, current->qp->qp_num, 0, current->qp->qp_num, 0), "connect");
	else
		connect_to_itself(address);
}

int main(int argc, char **argv)
{
	struct side c = {}, native = {};
	struct ibv_ah_attr address = {};
	const struct kind *kind;
	struct ibv_device **list;
	struct ibv_port_attr port;

	must(argc == 2, "usage: post-poll-simulated MODULE.so");
	must(!!(sim = uverbs_sim_load()), "the simulated device is not loaded");
	must(!!(list = ibv_get_device_list(NULL)) && !!list[0], "devices");
	kind = kind_of(list[0]);
	max_inline_data = kind->max_inline_data;
	current = &c;
	open_by_libibverbs(list[0], kind->has_extended);
	must(!ibv_query_port(current->context, 1, &port), "port");
	address.dlid = port.lid;
	connect_side(kind, address);
	current = &native;
	open_by_module(argv[1], list[0], kind->driver, kind->has_extended);
	connect_side(kind, address);

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		if ((tests[i].needs_extended && !kind->has_extended) ||
		    (tests[i].flags & IBV_SEND_INLINE && !kind->max_inline_data) ||
		    (tests[i].opcode == IBV_WR_ATOMIC_FETCH_AND_ADD && !kind->has_atomics))
			continue;
		compare(&tests[i], &c, &native);
	}
	return 0;
}
