/*
 * Threads that use the library and end, in turns and at once: each opens the device, sends itself a message and closes what it
 * opened, or leaves its queue pair to another thread, which goes on with it. Prints what it has proved, or what is wrong; the
 * exit status says which.
 */
#include <infiniband/verbs.h>
#include <pthread.h>
#include <string.h>

#include "check.h"

enum { THREADS = 8, TURNS = 8, SIZE = 64 };

struct own {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	struct ibv_ah *ah;
	int turns;
	char memory[2 * SIZE + sizeof(struct ibv_grh)];
};

static const char *device_name;

static void open_own(struct own *own)
{
	struct ibv_qp_init_attr init = {
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}, .qp_type = IBV_QPT_UD};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1};
	struct ibv_ah_attr to = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1}};
	struct ibv_device **list = ibv_get_device_list(NULL);
	int index;

	CHECK(list);
	for (index = 0; list[index]; index++)
		if (!strcmp(ibv_get_device_name(list[index]), device_name))
			own->context = ibv_open_device(list[index]);
	ibv_free_device_list(list);
	CHECK(own->context && (own->pd = ibv_alloc_pd(own->context)));
	CHECK((own->cq = ibv_create_cq(own->context, 2, NULL, NULL, 0)));
	CHECK((own->mr = ibv_reg_mr(own->pd, own->memory, sizeof(own->memory), IBV_ACCESS_LOCAL_WRITE)));
	init.send_cq = init.recv_cq = own->cq;
	CHECK((own->qp = ibv_create_qp(own->pd, &init)));
	CHECK(!ibv_modify_qp(own->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY));
	attr.qp_state = IBV_QPS_RTR;
	CHECK(!ibv_modify_qp(own->qp, &attr, IBV_QP_STATE));
	attr.qp_state = IBV_QPS_RTS;
	CHECK(!ibv_modify_qp(own->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN));
	CHECK(!ibv_query_gid(own->context, 1, 0, &to.grh.dgid));
	CHECK((own->ah = ibv_create_ah(own->pd, &to)));
}

static void send_message(struct own *own, char value)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(own->memory + SIZE), .length = SIZE + sizeof(struct ibv_grh),
			      .lkey = own->mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1};
	struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
				   .wr.ud = {.ah = own->ah, .remote_qpn = own->qp->qp_num, .remote_qkey = 1}};
	struct ibv_recv_wr *bad_receive;
	struct ibv_send_wr *bad;
	struct ibv_wc wc;
	int completions;
	int count;

	CHECK(!ibv_post_recv(own->qp, &receive, &bad_receive));
	memset(own->memory, value, SIZE);
	sge = (struct ibv_sge){.addr = (uintptr_t)own->memory, .length = SIZE, .lkey = own->mr->lkey};
	CHECK(!ibv_post_send(own->qp, &send, &bad));
	for (completions = 0; completions < 2; completions += count) {
		count = ibv_poll_cq(own->cq, 1, &wc);
		CHECK(count >= 0 && (count == 0 || wc.status == IBV_WC_SUCCESS));
	}
	CHECK(!memcmp(own->memory, own->memory + SIZE + sizeof(struct ibv_grh), SIZE));
}

static void close_own(struct own *own)
{
	CHECK(!ibv_destroy_ah(own->ah) && !ibv_destroy_qp(own->qp) && !ibv_dereg_mr(own->mr));
	CHECK(!ibv_destroy_cq(own->cq) && !ibv_dealloc_pd(own->pd) && !ibv_close_device(own->context));
	memset(own, 0, sizeof(*own));
}

static void *run(void *argument)
{
	struct own *own = argument;

	/* Another thread, which has ended, may have left it open. */
	if (!own->context)
		open_own(own);
	send_message(own, (char)own->turns);
	/* Every second one is left to the next thread. */
	if (++own->turns % 2 == 0)
		close_own(own);
	return NULL;
}

int main(int count, char **names)
{
	static struct own all[THREADS];
	pthread_t threads[THREADS];
	int turn;
	int index;

	CHECK(count == 2);
	device_name = names[1];
	for (turn = 0; turn < TURNS; turn++) {
		for (index = 0; index < THREADS; index++)
			CHECK(!pthread_create(&threads[index], NULL, run, &all[index]));
		for (index = 0; index < THREADS; index++)
			CHECK(!pthread_join(threads[index], NULL));
	}
	for (index = 0; index < THREADS; index++)
		if (all[index].context)
			close_own(&all[index]);
	printf("threads: all of %s\n", device_name);
	return 0;
}
