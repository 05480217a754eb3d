/*
 * rpma.c - two processes connected by librpma: WRITE, FLUSH, READ, ATOMIC WRITE and a message, with every byte compared on
 * both sides.
 *
 *   rpma server ADDRESS PORT
 *   rpma client ADDRESS PORT
 */
#include <librpma.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

#define SIZE ((size_t)1 << 16)
#define MESSAGE "rpma: written"

static char memory[2 * SIZE] __attribute__((aligned(4096)));

static char pattern(size_t index)
{
	return (char)(index * 7 + index / 251);
}

static struct rpma_peer *make_peer(const char *address, enum rpma_util_ibv_context_type type)
{
	struct ibv_context *context;
	struct rpma_peer *peer;

	CHECK(!rpma_utils_get_ibv_context(address, type, &context));
	CHECK(!rpma_peer_new(context, &peer));
	return peer;
}

static void expect_event(struct rpma_conn *connection, enum rpma_conn_event wanted)
{
	enum rpma_conn_event event;

	CHECK(!rpma_conn_next_event(connection, &event));
	CHECK(event == wanted);
}

/* Waits for the completion of the only outstanding request. */
static void complete(struct rpma_conn *connection, enum ibv_wc_opcode opcode)
{
	struct rpma_cq *queue;
	struct ibv_wc completion;
	int error;

	CHECK(!rpma_conn_get_cq(connection, &queue));
	do {
		CHECK(!rpma_cq_wait(queue));
		error = rpma_cq_get_wc(queue, 1, &completion, NULL);
	} while (error == RPMA_E_NO_COMPLETION);
	CHECK(!error);
	CHECK(completion.status == IBV_WC_SUCCESS);
	CHECK(completion.opcode == opcode);
}

static void serve(const char *address, const char *port)
{
	struct rpma_peer *peer = make_peer(address, RPMA_UTIL_IBV_CONTEXT_LOCAL);
	struct rpma_conn_private_data data;
	struct rpma_conn_req *request;
	struct rpma_mr_local *region;
	struct rpma_conn *connection;
	char descriptor[64];
	struct rpma_ep *end;
	uint64_t word;
	size_t size;

	CHECK(!rpma_mr_reg(peer, memory, sizeof(memory),
			   RPMA_MR_USAGE_WRITE_DST | RPMA_MR_USAGE_READ_SRC | RPMA_MR_USAGE_RECV |
				   RPMA_MR_USAGE_FLUSH_TYPE_VISIBILITY,
			   &region));
	CHECK(!rpma_mr_get_descriptor_size(region, &size));
	CHECK(size <= sizeof(descriptor));
	CHECK(!rpma_mr_get_descriptor(region, descriptor));
	data = (struct rpma_conn_private_data){ descriptor, (uint8_t)size };
	CHECK(!rpma_ep_listen(peer, address, port, &end));
	CHECK(!rpma_ep_next_conn_req(end, NULL, &request));
	CHECK(!rpma_conn_req_recv(request, region, SIZE, SIZE, NULL));
	CHECK(!rpma_conn_req_connect(&request, &data, &connection));
	expect_event(connection, RPMA_CONN_ESTABLISHED);
	complete(connection, IBV_WC_RECV);
	CHECK(!strcmp(memory + SIZE, MESSAGE));
	memcpy(&word, memory, sizeof(word));
	CHECK(word == 0x0123456789abcdef);
	for (size_t index = sizeof(word); index < SIZE; index++)
		CHECK(memory[index] == pattern(index));
	expect_event(connection, RPMA_CONN_CLOSED);
	CHECK(!rpma_conn_disconnect(connection));
	CHECK(!rpma_conn_delete(&connection));
	CHECK(!rpma_ep_shutdown(&end));
	CHECK(!rpma_mr_dereg(&region));
	CHECK(!rpma_peer_delete(&peer));
}

static void call(const char *address, const char *port)
{
	const char word[8] = { '\xef', '\xcd', '\xab', '\x89', '\x67', '\x45', '\x23', '\x01' };
	struct rpma_peer *peer = make_peer(address, RPMA_UTIL_IBV_CONTEXT_REMOTE);
	struct rpma_conn_private_data data;
	struct rpma_conn_req *request;
	struct rpma_mr_remote *target;
	struct rpma_mr_local *region;
	struct rpma_conn *connection;

	for (size_t index = 0; index < SIZE; index++)
		memory[index] = pattern(index);
	CHECK(!rpma_mr_reg(peer, memory, sizeof(memory),
			   RPMA_MR_USAGE_WRITE_SRC | RPMA_MR_USAGE_READ_DST | RPMA_MR_USAGE_SEND, &region));
	CHECK(!rpma_conn_req_new(peer, address, port, NULL, &request));
	CHECK(!rpma_conn_req_connect(&request, NULL, &connection));
	expect_event(connection, RPMA_CONN_ESTABLISHED);
	CHECK(!rpma_conn_get_private_data(connection, &data));
	CHECK(!rpma_mr_remote_from_descriptor(data.ptr, data.len, &target));
	CHECK(!rpma_write(connection, target, 0, region, 0, SIZE, RPMA_F_COMPLETION_ON_ERROR, NULL));
	CHECK(!rpma_flush(connection, target, 0, SIZE, RPMA_FLUSH_TYPE_VISIBILITY, RPMA_F_COMPLETION_ALWAYS,
			  NULL));
	complete(connection, IBV_WC_RDMA_READ);
	CHECK(!rpma_read(connection, region, SIZE, target, 0, SIZE, RPMA_F_COMPLETION_ALWAYS, NULL));
	complete(connection, IBV_WC_RDMA_READ);
	CHECK(!memcmp(memory, memory + SIZE, SIZE));
	CHECK(!rpma_atomic_write(connection, target, 0, word, RPMA_F_COMPLETION_ALWAYS, NULL));
	complete(connection, IBV_WC_RDMA_WRITE);
	strcpy(memory, MESSAGE);
	CHECK(!rpma_send(connection, region, 0, sizeof(MESSAGE), RPMA_F_COMPLETION_ALWAYS, NULL));
	complete(connection, IBV_WC_SEND);
	CHECK(!rpma_conn_disconnect(connection));
	expect_event(connection, RPMA_CONN_CLOSED);
	CHECK(!rpma_mr_remote_delete(&target));
	CHECK(!rpma_conn_delete(&connection));
	CHECK(!rpma_mr_dereg(&region));
	CHECK(!rpma_peer_delete(&peer));
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: rpma server|client ADDRESS PORT\n");
		return 2;
	}
	rpma_log_set_threshold(RPMA_LOG_THRESHOLD_AUX, RPMA_LOG_LEVEL_INFO);
	if (!strcmp(argv[1], "server"))
		serve(argv[2], argv[3]);
	else
		call(argv[2], argv[3]);
	printf("rpma: all of the %s\n", argv[1]);
	return 0;
}
