/*
 * Two processes send each other tagged messages with UCX until one of them is killed: the other one must learn of it from its
 * endpoint, since nothing else connects them once they know each other's address. ucx_perftest of UCX before 1.16 reads a TCP
 * connection that has ended for ever.
 *
 *     ucx -p PORT [HOST]
 *
 * Prints "flows" when messages have come and gone. Exits with status 3 and the reason when the endpoint fails.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ucp/api/ucp.h>

#include "check.h"

enum { SIZE = 20000, ROUNDS = 16 };

static ucp_worker_h worker;
static ucs_status_t failure = UCS_OK;

static void end_if_failed(ucs_status_t status)
{
	if (failure == UCS_OK)
		failure = status;
	if (failure != UCS_OK) {
		printf("ucx: the peer is gone: %s\n", ucs_status_string(failure));
		/* Without the cleanup, which waits for a peer. */
		fflush(stdout);
		_exit(3);
	}
}

static void note_failure(void *argument, ucp_ep_h endpoint, ucs_status_t status)
{
	(void)argument;
	(void)endpoint;
	failure = status;
}

static void finish(ucs_status_ptr_t request)
{
	ucs_status_t status = UCS_PTR_STATUS(request);

	while (UCS_PTR_IS_PTR(request) && (status = ucp_request_check_status(request)) == UCS_INPROGRESS) {
		ucp_worker_progress(worker);
		end_if_failed(UCS_OK);
	}
	end_if_failed(status);
	if (UCS_PTR_IS_PTR(request))
		ucp_request_free(request);
}

/* A connection to the peer, for the addresses. */
static int meet(int server, uint16_t port)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int one = 1;
	int connection = socket(AF_INET, SOCK_STREAM, 0);
	int listener;

	CHECK(connection >= 0);
	if (!server) {
		CHECK(!connect(connection, (struct sockaddr *)&name, sizeof(name)));
		return connection;
	}
	listener = connection;
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	CHECK(!bind(listener, (struct sockaddr *)&name, sizeof(name)) && !listen(listener, 1));
	connection = accept(listener, NULL, NULL);
	CHECK(connection >= 0 && !close(listener));
	return connection;
}

static ucp_ep_h connect_peer(int connection)
{
	ucp_ep_params_t params = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
			      UCP_EP_PARAM_FIELD_ERR_HANDLER,
		.err_mode = UCP_ERR_HANDLING_MODE_PEER,
		.err_handler.cb = note_failure,
	};
	ucp_address_t *own;
	size_t length;
	size_t other;
	void *peer;
	ucp_ep_h endpoint;

	CHECK(ucp_worker_get_address(worker, &own, &length) == UCS_OK);
	CHECK(write(connection, &length, sizeof(length)) == sizeof(length));
	CHECK(write(connection, own, length) == (ssize_t)length);
	CHECK(recv(connection, &other, sizeof(other), MSG_WAITALL) == sizeof(other));
	peer = malloc(other);
	CHECK(peer && recv(connection, peer, other, MSG_WAITALL) == (ssize_t)other);
	params.address = peer;
	CHECK(ucp_ep_create(worker, &params, &endpoint) == UCS_OK);
	free(peer);
	ucp_worker_release_address(worker, own);
	close(connection);
	return endpoint;
}

int main(int count, char **words)
{
	const ucp_params_t features = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG};
	const ucp_worker_params_t threads = {.field_mask = 0};
	const ucp_request_param_t none = {.op_attr_mask = 0};
	static char sent[SIZE], received[SIZE];
	ucp_context_h context;
	ucp_ep_h endpoint;
	unsigned long round;

	CHECK(count >= 3 && !strcmp(words[1], "-p"));
	CHECK(ucp_init(&features, NULL, &context) == UCS_OK);
	CHECK(ucp_worker_create(context, &threads, &worker) == UCS_OK);
	endpoint = connect_peer(meet(count == 3, (uint16_t)atoi(words[2])));
	for (round = 0;; round++) {
		ucs_status_ptr_t receive = ucp_tag_recv_nbx(worker, received, SIZE, 1, ~0UL, &none);

		memset(sent, (int)round, SIZE);
		finish(ucp_tag_send_nbx(endpoint, sent, SIZE, 1, &none));
		finish(receive);
		CHECK(received[0] == (char)round && !memcmp(received, sent, SIZE));
		if (round == ROUNDS) {
			printf("ucx: flows\n");
			fflush(stdout);
		}
	}
}
