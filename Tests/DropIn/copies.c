/*
 * Two copies of the library in one process, as when a plugin brings its own: each has its own device, and a connection between
 * them moves data. The names are those of two files and of the device. Prints what it has proved, or what is wrong; the exit
 * status says which.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <string.h>

#include "check.h"

#undef ibv_reg_mr

#define FUNCTIONS(of)                                                                                      \
	of(ibv_get_device_list) of(ibv_free_device_list) of(ibv_open_device) of(ibv_close_device) of(ibv_query_gid) \
	of(ibv_alloc_pd) of(ibv_dealloc_pd) of(ibv_reg_mr) of(ibv_dereg_mr) of(ibv_create_cq) of(ibv_destroy_cq) \
	of(ibv_create_qp) of(ibv_modify_qp) of(ibv_destroy_qp)

enum { SIZE = 4096 };

struct side {
	void *library;
#define FUNCTION(name) __typeof__(&name) name;
	FUNCTIONS(FUNCTION)
#undef FUNCTION
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	union ibv_gid gid;
	char memory[SIZE];
};

static void open_side(struct side *side, const char *path, const char *name)
{
	struct ibv_qp_init_attr init = {
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}, .qp_type = IBV_QPT_RC};
	struct ibv_device **list;
	int index;

	side->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CHECK(side->library && dlsym(side->library, "swift_rdma_libibverbs"));
#define FUNCTION(name)                                                                                     \
	side->name = (__typeof__(side->name))dlvsym(side->library, #name, "IBVERBS_1.1");                  \
	CHECK(side->name);
	FUNCTIONS(FUNCTION)
#undef FUNCTION
	list = side->ibv_get_device_list(NULL);
	CHECK(list);
	for (index = 0; list[index]; index++)
		if (!strcmp(list[index]->name, name))
			side->context = side->ibv_open_device(list[index]);
	CHECK(side->context);
	side->ibv_free_device_list(list);
	side->pd = side->ibv_alloc_pd(side->context);
	CHECK(side->pd);
	side->mr = side->ibv_reg_mr(side->pd, side->memory, SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	side->cq = side->ibv_create_cq(side->context, 2, NULL, NULL, 0);
	CHECK(side->mr && side->cq);
	init.send_cq = init.recv_cq = side->cq;
	side->qp = side->ibv_create_qp(side->pd, &init);
	CHECK(side->qp && !side->ibv_query_gid(side->context, 1, 0, &side->gid));
}

static void connect_side(struct side *side, const struct side *peer)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};

	CHECK(!side->ibv_modify_qp(side->qp, &attr,
				   IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp->qp_num,
				    .min_rnr_timer = 12,
				    .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = peer->gid, .hop_limit = 1}}};
	CHECK(!side->ibv_modify_qp(side->qp, &attr,
				   IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7};
	CHECK(!side->ibv_modify_qp(side->qp, &attr,
				   IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
					   IBV_QP_MAX_QP_RD_ATOMIC));
}

/* The inline functions go to the library that made the object. */
static void complete(struct side *side, enum ibv_wc_opcode opcode)
{
	struct ibv_wc wc;
	int count;

	while ((count = ibv_poll_cq(side->cq, 1, &wc)) == 0)
		;
	CHECK(count == 1 && wc.status == IBV_WC_SUCCESS && wc.opcode == opcode);
}

static void move_data(struct side *from, struct side *to)
{
	struct ibv_sge sge = {.addr = (uintptr_t)to->memory, .length = SIZE, .lkey = to->mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1};
	struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_recv_wr *bad_receive;
	struct ibv_send_wr *bad;
	int index;

	CHECK(!ibv_post_recv(to->qp, &receive, &bad_receive));
	for (index = 0; index < SIZE; index++)
		from->memory[index] = (char)(index * 7 + (from->qp->qp_num & 0xff));
	sge = (struct ibv_sge){.addr = (uintptr_t)from->memory, .length = SIZE, .lkey = from->mr->lkey};
	CHECK(!ibv_post_send(from->qp, &send, &bad));
	complete(from, IBV_WC_SEND);
	complete(to, IBV_WC_RECV);
	CHECK(!memcmp(from->memory, to->memory, SIZE));
	memset(to->memory, 0, SIZE);
	send.opcode = IBV_WR_RDMA_WRITE;
	send.wr.rdma.remote_addr = (uintptr_t)to->memory;
	send.wr.rdma.rkey = to->mr->rkey;
	CHECK(!ibv_post_send(from->qp, &send, &bad));
	complete(from, IBV_WC_RDMA_WRITE);
	CHECK(!memcmp(from->memory, to->memory, SIZE));
}

static void close_side(struct side *side)
{
	CHECK(!side->ibv_destroy_qp(side->qp) && !side->ibv_destroy_cq(side->cq) && !side->ibv_dereg_mr(side->mr));
	CHECK(!side->ibv_dealloc_pd(side->pd) && !side->ibv_close_device(side->context) && !dlclose(side->library));
}

int main(int count, char **names)
{
	static struct side one, two;

	CHECK(count == 4);
	open_side(&one, names[1], names[3]);
	open_side(&two, names[2], names[3]);
	CHECK(one.library != two.library && one.ibv_open_device != two.ibv_open_device);
	connect_side(&one, &two);
	connect_side(&two, &one);
	move_data(&one, &two);
	move_data(&two, &one);
	/* The second one goes on without the first. */
	close_side(&one);
	close_side(&two);
	printf("copies: both of %s\n", names[3]);
	return 0;
}
