/*
 * A program that is linked with libibverbs, as any is. It compares the functions that need no device with those of the
 * distribution's library, and calls on a device of a provider what the programs of the distribution do not call. Prints what
 * it has proved, or what is wrong; the exit status says which.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { SIZE = 256, GRH = sizeof(struct ibv_grh) };

static char memory[4096];

/* The tables of this library are those of the distribution's, for every number, known or not. */
static void compare_values(void *other)
{
	__typeof__(&ibv_rate_to_mult) rate_to_mult = dlsym(other, "ibv_rate_to_mult");
	__typeof__(&mult_to_ibv_rate) mult_to_rate = dlsym(other, "mult_to_ibv_rate");
	__typeof__(&ibv_rate_to_mbps) rate_to_mbps = dlsym(other, "ibv_rate_to_mbps");
	__typeof__(&mbps_to_ibv_rate) mbps_to_rate = dlsym(other, "mbps_to_ibv_rate");
	int number;

	CHECK(rate_to_mult && rate_to_mult != ibv_rate_to_mult);
	for (number = -1; number < 64; number++) {
		CHECK(ibv_rate_to_mult(number) == rate_to_mult(number));
		CHECK(ibv_rate_to_mbps(number) == rate_to_mbps(number));
		CHECK(mbps_to_ibv_rate(rate_to_mbps(number)) == mbps_to_rate(rate_to_mbps(number)));
	}
	for (number = -1; number < 1000; number++)
		CHECK(mult_to_ibv_rate(number) == mult_to_rate(number));
}

static void check_names(void)
{
	int number;

	for (number = -1; number < 64; number++) {
		CHECK(ibv_wc_status_str(number) && ibv_event_type_str(number));
		CHECK(ibv_node_type_str(number) && ibv_port_state_str(number));
	}
	CHECK(!strcmp(ibv_wc_status_str(IBV_WC_RETRY_EXC_ERR), "transport retry counter exceeded"));
	CHECK(!strcmp(ibv_wc_status_str(IBV_WC_SUCCESS), "success"));
}

static struct ibv_qp *make_ud(struct ibv_pd *pd, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_UD,
	};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x1234};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	CHECK(qp && init.cap.max_send_wr >= 4);
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY));
	attr.qp_state = IBV_QPS_RTR;
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE));
	attr.qp_state = IBV_QPS_RTS;
	attr.sq_psn = 1;
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN));
	CHECK(!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) && attr.qp_state == IBV_QPS_RTS);
	CHECK(!ibv_qp_to_qp_ex(qp));
	return qp;
}

static void send_datagram(struct ibv_qp *qp, struct ibv_mr *mr, struct ibv_ah *ah, uint32_t to)
{
	struct ibv_sge sge = {.addr = (uintptr_t)memory, .length = SIZE, .lkey = mr->lkey};
	struct ibv_send_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				 .wr.ud = {.ah = ah, .remote_qpn = to, .remote_qkey = 0x1234}};
	struct ibv_send_wr *bad;

	CHECK(!ibv_post_send(qp, &wr, &bad));
}

/* Waits for the completion of a receive through the channel. */
static struct ibv_wc received(struct ibv_comp_channel *channel, struct ibv_cq *cq)
{
	struct ibv_wc wc;
	struct ibv_cq *found;
	void *context;

	for (;;) {
		int count = ibv_poll_cq(cq, 1, &wc);

		CHECK(count >= 0);
		if (count == 1) {
			CHECK(wc.status == IBV_WC_SUCCESS);
			if (wc.opcode == IBV_WC_RECV)
				return wc;
			continue;
		}
		CHECK(!ibv_get_cq_event(channel, &found, &context) && found == cq && context == memory);
		ibv_ack_cq_events(cq, 1);
		CHECK(!ibv_req_notify_cq(cq, 0));
	}
}

/* A datagram goes to this queue pair, and its answer to where the first one says that it came from. */
static void answer_datagram(struct ibv_context *context, struct ibv_pd *pd, struct ibv_comp_channel *channel,
			    struct ibv_cq *cq, int gid_index)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	struct ibv_qp *qp = make_ud(pd, cq);
	struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = (uint8_t)gid_index, .hop_limit = 1}};
	struct ibv_grh *grh = (struct ibv_grh *)(memory + 1024);
	struct ibv_sge sge = {.addr = (uintptr_t)grh, .length = SIZE + GRH};
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1};
	struct ibv_recv_wr *bad;
	struct ibv_ah *ah;
	struct ibv_wc wc;
	int index;

	CHECK(mr && !ibv_query_gid(context, 1, gid_index, &attr.grh.dgid));
	sge.lkey = mr->lkey;
	ah = ibv_create_ah(pd, &attr);
	CHECK(ah);
	for (index = 0; index < SIZE; index++)
		memory[index] = (char)(index * 7 + gid_index);
	for (index = 0; index < 2; index++) {
		struct ibv_ah *back;

		memset(grh, 0xff, SIZE + GRH);
		CHECK(!ibv_post_recv(qp, &wr, &bad));
		send_datagram(qp, mr, ah, qp->qp_num);
		wc = received(channel, cq);
		CHECK(wc.byte_len == SIZE + GRH && wc.src_qp == qp->qp_num && wc.wc_flags & IBV_WC_GRH);
		CHECK(!memcmp(grh + 1, memory, SIZE));
		memset(&attr, 0xff, sizeof(attr));
		CHECK(!ibv_init_ah_from_wc(context, 1, &wc, grh, &attr));
		CHECK(attr.is_global == 1 && attr.port_num == 1 && attr.grh.sgid_index == gid_index);
		back = ibv_create_ah_from_wc(pd, &wc, grh, 1);
		CHECK(back && !ibv_destroy_ah(ah));
		ah = back;
	}
	CHECK(!ibv_destroy_ah(ah) && !ibv_destroy_qp(qp) && !ibv_dereg_mr(mr));
}

/* ibv_rereg_mr(3) refuses what libibverbs refuses, and the region stays; another access leaves the keys, other memory does not. */
static void reregister(struct ibv_pd *pd)
{
	const int remote = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, 2048, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_pd *other = ibv_alloc_pd(pd->context);
	uint32_t key;

	CHECK(mr && other);
	key = mr->rkey;
	CHECK(ibv_rereg_mr(mr, 0, NULL, NULL, 0, 0) == IBV_REREG_MR_ERR_INPUT && errno == EINVAL);
	CHECK(ibv_rereg_mr(mr, 1 << 10, NULL, NULL, 0, 0) == IBV_REREG_MR_ERR_INPUT);
	CHECK(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, other, NULL, 0, remote) == IBV_REREG_MR_ERR_INPUT);
	CHECK(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, NULL, 64, 0) == IBV_REREG_MR_ERR_INPUT);
	CHECK(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, memory, 0, 0) == IBV_REREG_MR_ERR_INPUT);
	CHECK(mr->rkey == key && mr->lkey == key && mr->pd == pd && mr->length == 2048);
	CHECK(!ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS | IBV_REREG_MR_CHANGE_PD, other, NULL, 0, remote));
	CHECK(mr->rkey == key && mr->lkey == key && mr->pd == other && ibv_dealloc_pd(other) == EBUSY);
	CHECK(!ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD, pd, memory + 2048, 1024, 0));
	CHECK(mr->rkey != key && mr->addr == memory + 2048 && mr->length == 1024 && mr->pd == pd);
	CHECK(!ibv_dealloc_pd(other) && !ibv_dereg_mr(mr));
}

int main(int count, char **names)
{
	void *other;
	int devices;
	int index;
	int tested = 0;
	struct ibv_device **list;
	struct ibv_device *device = NULL;
	struct ibv_context *context;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_cq_ex *extended;
	struct ibv_cq_init_attr_ex init = {.cqe = 8, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN};
	struct ibv_pd *pd;
	struct ibv_port_attr port;
	struct ibv_gid_entry entry;
	struct ibv_gid_entry table[64];
	ssize_t entries;
	struct ibv_srq_init_attr srq_init = {.attr = {.max_wr = 4, .max_sge = 1}};
	struct ibv_srq_attr srq_attr;
	struct ibv_srq *srq;
	bool (*is_mlx5)(struct ibv_device *);
	void *mlx5;

	CHECK(count >= 2); /* the device, and the path of the distribution's library, unless there is none */
	CHECK(ibv_fork_init() == 0);
	check_names();
	if (count > 2) {
		other = dlopen(names[2], RTLD_NOW | RTLD_LOCAL);
		CHECK(other);
		compare_values(other);
	}
	list = ibv_get_device_list(&devices);
	CHECK(list);
	for (index = 0; index < devices; index++)
		if (!strcmp(ibv_get_device_name(list[index]), names[1]))
			device = list[index];
	CHECK(device);
	/* A program asks whether it may use a vendor's functions. */
	mlx5 = count > 2 ? dlopen("libmlx5.so.1", RTLD_NOW) : NULL;
	if (mlx5) {
		is_mlx5 = dlsym(mlx5, "mlx5dv_is_supported");
		CHECK(is_mlx5 && !is_mlx5(device));
	}
	context = ibv_open_device(device);
	CHECK(context);
	ibv_free_device_list(list);

	channel = ibv_create_comp_channel(context);
	pd = ibv_alloc_pd(context);
	CHECK(channel && pd);
	cq = ibv_create_cq(context, 16, memory, channel, 0);
	CHECK(cq && ibv_destroy_comp_channel(channel) == EBUSY && !ibv_req_notify_cq(cq, 0));
	CHECK(!ibv_resize_cq(cq, 64) && cq->cqe >= 64);
	extended = ibv_create_cq_ex(context, &init);
	CHECK(extended && !ibv_destroy_cq(ibv_cq_ex_to_cq(extended)));
	srq = ibv_create_srq(pd, &srq_init);
	CHECK(srq && !ibv_query_srq(srq, &srq_attr) && srq_attr.max_wr >= 4 && !ibv_destroy_srq(srq));
	CHECK(ibv_dealloc_pd(pd) == 0);
	pd = ibv_alloc_pd(context);
	CHECK(pd);
	reregister(pd);

	/* Datagrams from every GID: IPv4 has another header than IPv6. */
	CHECK(!ibv_query_port(context, 1, &port));
	entries = ibv_query_gid_table(context, table, 64, 0);
	CHECK(entries > 0);
	for (index = 0; index < entries; index++) {
		CHECK(!ibv_query_gid_ex(context, 1, table[index].gid_index, &entry, 0));
		CHECK(!memcmp(&entry, &table[index], sizeof(entry)));
		answer_datagram(context, pd, channel, cq, (int)table[index].gid_index);
		tested++;
	}
	CHECK(ibv_get_pkey_index(context, 1, 0xffff) == 0);
	CHECK(ibv_get_pkey_index(context, 1, 0x1) == -1);
	CHECK(!ibv_destroy_cq(cq) && !ibv_destroy_comp_channel(channel) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	printf("verbs: all of %s, datagrams from %d GIDs\n", names[1], tested);
	return 0;
}
