/*
 * Two queue pairs of one process: one writes into the memory of the other, and sends it a message. It needs libibverbs and one
 * device with RoCE; without hardware: verbs run -- make check
 */
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *object, const char *what)
{
	if (!object) {
		perror(what);
		exit(1);
	}
	return object;
}

static void expect(int error, const char *what)
{
	if (error) {
		fprintf(stderr, "%s: %s\n", what, strerror(error));
		exit(1);
	}
}

static struct ibv_qp *make_queue_pair(struct ibv_pd *domain, struct ibv_cq *completions)
{
	struct ibv_qp_init_attr attributes = {
		.send_cq = completions,
		.recv_cq = completions,
		.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_RC,
	};

	return check(ibv_create_qp(domain, &attributes), "ibv_create_qp");
}

/* From RESET to RTS, connected to `peer`, a queue pair of the same port. */
static void connect_to(struct ibv_qp *pair, const struct ibv_qp *peer, const struct ibv_gid_entry *gid)
{
	struct ibv_qp_attr attributes = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
	};

	expect(ibv_modify_qp(pair, &attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "to INIT");
	attributes.qp_state = IBV_QPS_RTR;
	attributes.path_mtu = IBV_MTU_1024;
	attributes.dest_qp_num = peer->qp_num;
	attributes.max_dest_rd_atomic = 1;
	attributes.min_rnr_timer = 12;
	attributes.ah_attr = (struct ibv_ah_attr){
		.is_global = 1,
		.grh = {.dgid = gid->gid, .sgid_index = (uint8_t)gid->gid_index, .hop_limit = 64},
		.port_num = 1,
	};
	expect(ibv_modify_qp(pair, &attributes,
			     IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
	       "to RTR");
	attributes.qp_state = IBV_QPS_RTS;
	attributes.timeout = 14;
	attributes.retry_cnt = 7;
	attributes.rnr_retry = 7;
	attributes.max_rd_atomic = 1;
	expect(ibv_modify_qp(pair, &attributes,
			     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				     IBV_QP_MAX_QP_RD_ATOMIC),
	       "to RTS");
}

static struct ibv_context *open_first(struct ibv_device **devices)
{
	if (!devices[0]) {
		fprintf(stderr, "there is no RDMA device; without hardware: verbs run -- make check\n");
		exit(1);
	}
	return ibv_open_device(devices[0]);
}

static void complete(struct ibv_cq *completions, int count)
{
	struct ibv_wc completion;
	int polled;

	while (count > 0) {
		polled = ibv_poll_cq(completions, 1, &completion);
		if (polled < 0 || (polled == 1 && completion.status != IBV_WC_SUCCESS)) {
			fprintf(stderr, "completion: %s\n", polled < 0 ? "error" : ibv_wc_status_str(completion.status));
			exit(1);
		}
		count -= polled;
	}
}

int main(void)
{
	static char memory[3][64] = {"written without the peer's help", "", "a message"};
	struct ibv_device **devices = check(ibv_get_device_list(NULL), "ibv_get_device_list");
	struct ibv_context *context = check(open_first(devices), "ibv_open_device");
	struct ibv_pd *domain = check(ibv_alloc_pd(context), "ibv_alloc_pd");
	struct ibv_cq *completions = check(ibv_create_cq(context, 16, NULL, NULL, 0), "ibv_create_cq");
	struct ibv_mr *region = check(ibv_reg_mr(domain, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE),
				      "ibv_reg_mr");
	struct ibv_qp *first = make_queue_pair(domain, completions);
	struct ibv_qp *second = make_queue_pair(domain, completions);
	struct ibv_gid_entry gid;
	char received[64];
	struct ibv_mr *other = check(ibv_reg_mr(domain, received, sizeof(received), IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
	struct ibv_sge room = {(uintptr_t)received, sizeof(received), other->lkey};
	struct ibv_sge parts[] = {{(uintptr_t)memory[0], 64, region->lkey}, {(uintptr_t)memory[2], 64, region->lkey}};
	struct ibv_recv_wr receive = {.sg_list = &room, .num_sge = 1}, *bad_receive;
	struct ibv_send_wr send[] = {
		{.next = &send[1], .sg_list = &parts[0], .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED,
		 .wr.rdma = {(uintptr_t)memory[1], region->rkey}},
		{.sg_list = &parts[1], .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED},
	}, *bad_send;

	expect(ibv_query_gid_ex(context, 1, 0, &gid, 0), "ibv_query_gid_ex");
	connect_to(first, second, &gid);
	connect_to(second, first, &gid);
	expect(ibv_post_recv(second, &receive, &bad_receive), "ibv_post_recv");
	expect(ibv_post_send(first, send, &bad_send), "ibv_post_send");
	complete(completions, 3);
	if (strcmp(memory[1], memory[0]) || strcmp(received, memory[2])) {
		fprintf(stderr, "the bytes differ\n");
		return 1;
	}
	printf("%s: \"%s\", and %s\n", ibv_get_device_name(context->device), memory[1], received);

	ibv_destroy_qp(first);
	ibv_destroy_qp(second);
	ibv_dereg_mr(region);
	ibv_dereg_mr(other);
	ibv_destroy_cq(completions);
	ibv_dealloc_pd(domain);
	ibv_close_device(context);
	ibv_free_device_list(devices);
	return 0;
}
