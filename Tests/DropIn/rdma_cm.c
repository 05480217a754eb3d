/*
 * A program that works with /dev/infiniband/rdma_cm itself, as librdmacm does: copies of the descriptor and all ways in
 * which they end, other files at their numbers, the library's own descriptors, children of fork(2) and vfork(2), threads that
 * wait, threads that are cancelled, signal handlers, and connections. Prints what it has proved, or what is wrong; the exit
 * status says which.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rdma/rdma_user_cm.h>

#include "check.h"

/* Writes a command with its struct. Returns 0, or the errno value. */
static int command(int node, uint32_t number, const void *request, size_t in, size_t out)
{
	struct {
		struct rdma_ucm_cmd_hdr header;
		char request[512];
	} bytes = {.header = {.cmd = number, .in = (uint16_t)in, .out = (uint16_t)out}};
	const size_t length = sizeof(bytes.header) + in;
	ssize_t count;

	memcpy(bytes.request, request, in);
	count = write(node, &bytes, length);
	CHECK(count == -1 || count == (ssize_t)length);
	return count < 0 ? errno : 0;
}

#define COMMAND(node, number, request, out) command(node, number, &(request), sizeof(request), out)

static int open_node(int flags)
{
	const int node = open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC | flags);
	struct stat status;

	CHECK(node >= 0);
	CHECK(fstat(node, &status) == 0 && S_ISCHR(status.st_mode));
	return node;
}

static uint32_t create(int node)
{
	struct rdma_ucm_create_id_resp response;
	const struct rdma_ucm_create_id request = {.response = (uintptr_t)&response, .ps = RDMA_PS_TCP};

	CHECK(COMMAND(node, RDMA_USER_CM_CMD_CREATE_ID, request, sizeof(response)) == 0);
	return response.id;
}

static int destroy(int node, uint32_t id)
{
	struct rdma_ucm_destroy_id_resp response;
	const struct rdma_ucm_destroy_id request = {.response = (uintptr_t)&response, .id = id};

	return COMMAND(node, RDMA_USER_CM_CMD_DESTROY_ID, request, sizeof(response));
}

static int get_event(int node, struct rdma_ucm_event_resp *event)
{
	const struct rdma_ucm_get_event request = {.response = (uintptr_t)event};

	return COMMAND(node, RDMA_USER_CM_CMD_GET_EVENT, request, sizeof(*event));
}

/* The next event, which is of this type. */
static struct rdma_ucm_event_resp expect(int node, uint32_t type)
{
	struct rdma_ucm_event_resp event;

	CHECK(get_event(node, &event) == 0);
	CHECK(event.event == type && event.status == 0);
	return event;
}

static const struct sockaddr_in *loopback(uint16_t port)
{
	static struct sockaddr_in address;

	address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return &address;
}

/* RESOLVE_ADDR, after which an event waits. */
static int resolve_to(int node, uint32_t id, const struct sockaddr_in *address)
{
	struct rdma_ucm_resolve_addr request = {.id = id, .timeout_ms = 1000, .dst_size = sizeof(*address)};

	memcpy(&request.dst_addr, address, sizeof(*address));
	return COMMAND(node, RDMA_USER_CM_CMD_RESOLVE_ADDR, request, 0);
}

static int resolve(int node, uint32_t id, uint16_t port)
{
	return resolve_to(node, id, loopback(port));
}

static uint16_t free_port(void)
{
	return (uint16_t)(20000 + getpid() % 10000);
}

static int bind_to(int node, uint32_t id, uint16_t port)
{
	struct rdma_ucm_bind request = {.id = id, .addr_size = sizeof(struct sockaddr_in)};

	memcpy(&request.addr, loopback(port), sizeof(struct sockaddr_in));
	return COMMAND(node, RDMA_USER_CM_CMD_BIND, request, 0);
}

/* The numbers of <rdma/rdma_cma.h>, which cannot be included beside the kernel's header. */
enum {
	ADDR_RESOLVED = 0,
	ROUTE_RESOLVED = 2,
	CONNECT_REQUEST = 4,
	CONNECT_RESPONSE = 5,
	ESTABLISHED = 9,
	DISCONNECTED = 10,
};

/* Whether the descriptor is an open file of the node: CREATE_ID works. */
static bool works(int node)
{
	return destroy(node, create(node)) == 0;
}

static void check_copies(void)
{
	const int node = open_node(0);
	const uint32_t id = create(node);
	int ends[2];
	int copy, other, third;
	char byte[8];

	CHECK(pipe2(ends, O_CLOEXEC) == 0);
	copy = dup(node);
	other = fcntl(node, F_DUPFD_CLOEXEC, 100);
	third = dup3(node, 200, O_CLOEXEC);
	CHECK(copy >= 0 && other >= 100 && third == 200);
	CHECK(works(copy) && works(other) && works(third));
	/* What fails changes nothing. */
	errno = 0;
	CHECK(dup2(-1, node) == -1 && errno == EBADF && works(node));
	CHECK(dup3(ends[1], node, O_APPEND) == -1 && errno == EINVAL && works(node));
	CHECK(dup3(node, node, 0) == -1 && errno == EINVAL && works(node));
	CHECK(dup2(node, node) == node && works(node));
	/* The file is open as long as one of its copies. */
	CHECK(close(node) == 0);
	CHECK(dup2(ends[1], other) == other);
	CHECK(write(other, "pipe", 4) == 4 && read(ends[0], byte, 4) == 4);
	CHECK(dup2(copy, third) == third && works(third));
	CHECK(destroy(third, id) == 0);
	CHECK(close(copy) == 0 && works(third) && close(third) == 0);
	CHECK(write(third, byte, 8) == -1 && errno == EBADF);
	close(other);
	close(ends[0]);
	close(ends[1]);
}

/* Another file has the number of a descriptor that ended without close(2). */
static void check_ends(void)
{
	const uint64_t header = RDMA_USER_CM_CMD_GET_EVENT;
	uint64_t count;
	int node, other, kind;

	for (kind = 0; kind < 4; kind++) {
		node = open_node(O_NONBLOCK);
		CHECK(create(node) == 0);
		switch (kind) {
		case 0: CHECK(close_range((unsigned)node, (unsigned)node, 0) == 0); break;
		case 1: CHECK(syscall(SYS_close, node) == 0); break;
		case 2: CHECK(fclose(fdopen(node, "r")) == 0); break;
		case 3: CHECK(close(node) == 0); break;
		}
		other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		CHECK(other >= 0 && syscall(SYS_dup3, other, 300, O_CLOEXEC) == 300);
		CHECK(syscall(SYS_dup3, other, node, O_CLOEXEC) == (other == node ? -1 : node));
		CHECK(write(node, &header, sizeof(header)) == sizeof(header));
		CHECK(read(300, &count, sizeof(count)) == sizeof(count) && count == header);
		CHECK(close(node) == 0 && close(300) == 0);
		if (other != node)
			close(other);
	}
	node = open_node(0);
	CHECK(close_range(1000, 999, 0) == -1 && errno == EINVAL);
	CHECK(close_range((unsigned)node, (unsigned)node, CLOSE_RANGE_CLOEXEC) == 0 && works(node));
	/* All numbers are free again, so every file of the node above has been closed. */
	CHECK(create(node) == 0);
	close(node);
}

/* At the number of a file of the node is one that is as an eventfd(2) to fstat(2). */
static void check_reuse(void)
{
	const uint64_t header = RDMA_USER_CM_CMD_GET_EVENT;
	const int other = epoll_create1(EPOLL_CLOEXEC);
	int node = open_node(0);

	CHECK(create(node) == 0);
	CHECK(other >= 0 && syscall(SYS_dup3, other, node, O_CLOEXEC) == node);
	errno = 0;
	CHECK(write(node, &header, sizeof(header)) == -1 && errno == EINVAL);
	CHECK(close(node) == 0 && close(other) == 0);
	node = open_node(0);
	CHECK(create(node) == 0 && close(node) == 0);
}

static void ends_well(pid_t child)
{
	int status = -1;

	CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void check_children(void)
{
	const int node = open_node(0);
	uint32_t id = create(node);
	struct rdma_ucm_event_resp event;
	volatile int closed;
	int ends[2];
	pid_t child;

	closed = -1;
	child = vfork();
	if (child == 0) {
		closed = close(node);
		_exit(0);
	}
	ends_well(child);
	CHECK(closed == 0 && works(node));
	child = vfork();
	if (child == 0) {
		closed = dup2(2, node) == node && dup2(node, 50) == 50 ? 0 : -1;
		_exit(0);
	}
	ends_well(child);
	CHECK(closed == 0 && works(node));
	/* Neither waits for an event nor takes the parent's. */
	child = fork();
	if (child == 0) {
		alarm(60);
		_exit(get_event(node, &event) == EPERM && destroy(node, id) == EPERM && close(node) == 0 ? 0 : 1);
	}
	ends_well(child);
	CHECK(resolve(node, id, 9) == 0);
	child = fork();
	if (child == 0) {
		alarm(60);
		_exit(get_event(node, &event) == EPERM && close_range(3, ~0U, 0) == 0 ? 0 : 1);
	}
	ends_well(child);
	/* A number of the parent's file is that of another one. */
	child = fork();
	if (child == 0) {
		char byte[4] = {};
		int other;

		alarm(60);
		CHECK(close_range(3, ~0U, 0) == 0 && pipe(ends) == 0);
		if (ends[0] == node)
			CHECK((ends[0] = dup(node)) >= 0);
		if (ends[1] != node)
			CHECK(dup2(ends[1], node) == node);
		CHECK(write(node, "pipe", 4) == 4 && read(ends[0], byte, 4) == 4 && !memcmp(byte, "pipe", 4));
		other = epoll_create1(0);
		CHECK(other >= 0 && dup2(other, node) == node);
		CHECK(get_event(node, &event) == EINVAL);
		_exit(0);
	}
	ends_well(child);
	expect(node, ADDR_RESOLVED);
	CHECK(destroy(node, id) == 0);
	/* A port is free again while there is a child from the time of its use. */
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	id = create(node);
	CHECK(bind_to(node, id, free_port()) == 0);
	child = fork();
	if (child == 0) {
		alarm(60);
		close(ends[1]);
		_exit(write(ends[0], "", 1) == 1 && read(ends[0], &(char){0}, 1) == 0 ? 0 : 1);
	}
	CHECK(read(ends[1], &(char){0}, 1) == 1 && destroy(node, id) == 0);
	id = create(node);
	CHECK(bind_to(node, id, free_port()) == 0);
	close(ends[0]);
	close(ends[1]);
	ends_well(child);
	CHECK(destroy(node, id) == 0 && close(node) == 0);
}

static void *wait_for_event(void *node)
{
	struct rdma_ucm_event_resp event;

	CHECK(get_event(*(int *)node, &event) == 0 && event.event == ADDR_RESOLVED);
	return (void *)(uintptr_t)(event.id + 1);
}

static void *create_until_cancelled(void *node)
{
	for (;;) {
		CHECK(works(*(int *)node));
		pthread_testcancel();
	}
	return NULL;
}

static void check_threads(void)
{
	int node = open_node(0);
	const uint32_t ids[] = {create(node), create(node)};
	pthread_t threads[2];
	void *results[2];

	/* A cancellation comes at any place of a command, and the locks are free afterwards. */
	for (int round = 0; round < 50; round++) {
		CHECK(pthread_create(&threads[0], NULL, create_until_cancelled, &node) == 0);
		CHECK(works(node));
		CHECK(pthread_cancel(threads[0]) == 0 && pthread_join(threads[0], &results[0]) == 0);
		CHECK(results[0] == PTHREAD_CANCELED && works(node));
	}
	/* GET_EVENT waits, and is a point of cancellation there. */
	CHECK(pthread_create(&threads[0], NULL, wait_for_event, &node) == 0);
	CHECK(pthread_cancel(threads[0]) == 0 && pthread_join(threads[0], &results[0]) == 0);
	CHECK(results[0] == PTHREAD_CANCELED && works(node));
	/* Each of two events is read by one of two threads. */
	for (int index = 0; index < 2; index++)
		CHECK(pthread_create(&threads[index], NULL, wait_for_event, &node) == 0);
	for (int index = 0; index < 2; index++)
		CHECK(resolve(node, ids[index], 9) == 0);
	for (int index = 0; index < 2; index++)
		CHECK(pthread_join(threads[index], &results[index]) == 0);
	CHECK((uintptr_t)results[0] + (uintptr_t)results[1] == ids[0] + ids[1] + 2 && results[0] != results[1]);
	/* The event of an identifier that is destroyed is gone, and its count too. */
	CHECK(destroy(node, ids[0]) == 0);
	CHECK(create(node) == ids[0] && resolve(node, ids[0], 9) == 0 && destroy(node, ids[0]) == 0);
	CHECK(poll(&(struct pollfd){.fd = node, .events = POLLIN}, 1, 0) == 0);
	close(node);
}

/* What a signal handler does to files of the node. */
static int handled_node, handled_files[16];
static volatile sig_atomic_t handled_count, handled_events, has_sent;

static void handle(int number)
{
	const int saved = errno;
	struct rdma_ucm_event_resp event;
	int error;

	(void)number;
	if (handled_count < 16) {
		CHECK(close(handled_files[handled_count++]) == 0);
	} else {
		error = get_event(handled_node, &event);
		CHECK(error == 0 || error == EBUSY || error == EAGAIN);
		handled_events += error == 0;
	}
	errno = saved;
}

static void *send_signals(void *thread)
{
	for (int count = 0; count < 2000; count++)
		CHECK(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0 && sched_yield() == 0);
	has_sent = 1;
	return NULL;
}

/* A handler that interrupts a command, or comes between two: what is refused to it is not lost. */
static void check_signals(void)
{
	const int node = open_node(0);
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
	struct rdma_ucm_event_resp event;
	pthread_t thread, self = pthread_self();
	int left = 0;

	handled_node = open_node(O_NONBLOCK);
	for (int index = 0; index < 16; index++)
		create(handled_files[index] = open_node(0));
	for (int index = 0; index < 20; index++)
		CHECK(resolve(handled_node, create(handled_node), 9) == 0);
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, send_signals, &self) == 0);
	while (!has_sent)
		CHECK(works(node));
	CHECK(pthread_join(thread, NULL) == 0);
	/* One signal may wait, which the number of calls does not depend on. */
	action.sa_handler = SIG_IGN;
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	CHECK(handled_count == 16);
	while (get_event(handled_node, &event) == 0)
		left++;
	CHECK(handled_events + left == 20);
	CHECK(close(handled_node) == 0);
	/* All numbers are free: the files are closed, those too whose close(2) came during a command. */
	CHECK(create(node) == 0 && close(node) == 0);
}

/* An open file with an identifier, whose descriptor ends without close(2). */
static void leave_file(void)
{
	const int node = open_node(0);

	create(node);
	CHECK(fclose(fdopen(node, "r")) == 0);
}

static void check_connection(in_addr_t address)
{
	struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	/* The library's own thread reports the request to the file that has the number now. */
	const int server = (leave_file(), open_node(0));
	const int client = open_node(0);
	const uint32_t listener = create(server);
	const uint32_t active = create(client);
	struct rdma_ucm_migrate_resp moved;
	struct rdma_ucm_migrate_id migration = {.response = (uintptr_t)&moved};
	const uint16_t port = free_port();
	const struct rdma_ucm_listen listen = {.id = listener, .backlog = 8};
	const struct rdma_ucm_resolve_route route = {.id = active, .timeout_ms = 1000};
	struct rdma_ucm_connect connect = {.id = active, .conn_param = {.qp_num = 7, .valid = 1, .retry_count = 7}};
	struct rdma_ucm_accept accept = {.uid = 42, .conn_param = {.qp_num = 8, .valid = 1}};
	struct rdma_ucm_disconnect disconnect = {.id = active};
	struct rdma_ucm_event_resp event;
	int last;

	CHECK(bind_to(server, listener, port) == 0);
	CHECK(COMMAND(server, RDMA_USER_CM_CMD_LISTEN, listen, 0) == 0);
	/* The steps have an order, and each is taken once. */
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_CONNECT, connect, 0) == EINVAL);
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_RESOLVE_ROUTE, route, 0) == EINVAL);
	peer.sin_port = htons(port);
	CHECK(resolve_to(client, active, &peer) == 0 && resolve_to(client, active, &peer) == EINVAL);
	expect(client, ADDR_RESOLVED);
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_CONNECT, connect, 0) == EINVAL);
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_RESOLVE_ROUTE, route, 0) == 0);
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_RESOLVE_ROUTE, route, 0) == EINVAL);
	expect(client, ROUTE_RESOLVED);
	memcpy(connect.conn_param.private_data, "ping", 4);
	connect.conn_param.private_data_len = 4;
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_CONNECT, connect, 0) == 0);
	event = expect(server, CONNECT_REQUEST);
	CHECK(event.param.conn.qp_num == 7 && !memcmp(event.param.conn.private_data, "ping", 4));
	accept.id = event.id;
	CHECK(COMMAND(server, RDMA_USER_CM_CMD_ACCEPT, accept, 0) == 0);
	CHECK(expect(client, CONNECT_RESPONSE).param.conn.qp_num == 8);
	accept = (struct rdma_ucm_accept){.id = active};
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_ACCEPT, accept, 0) == 0);
	CHECK(expect(server, ESTABLISHED).uid == 42);
	/* The event that waits moves to another file. The descriptor must be one of the node. */
	CHECK(COMMAND(client, RDMA_USER_CM_CMD_DISCONNECT, disconnect, 0) == 0);
	CHECK(poll(&(struct pollfd){.fd = server, .events = POLLIN}, 1, 60000) == 1);
	last = open_node(0);
	migration.id = event.id;
	migration.fd = 999;
	CHECK(COMMAND(last, RDMA_USER_CM_CMD_MIGRATE_ID, migration, sizeof(moved)) == ENOENT);
	migration.fd = 2;
	CHECK(COMMAND(last, RDMA_USER_CM_CMD_MIGRATE_ID, migration, sizeof(moved)) == EINVAL);
	migration.fd = (uint32_t)server;
	CHECK(COMMAND(last, RDMA_USER_CM_CMD_MIGRATE_ID, migration, sizeof(moved)) == 0);
	CHECK(moved.events_reported == 1);
	CHECK(expect(last, DISCONNECTED).uid == 42);
	CHECK(close(server) == 0 && close(client) == 0 && close(last) == 0);
}

/* The processor time of the process, in microseconds. */
static long long used_time(void)
{
	struct timespec time;

	CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
	return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* The library's thread waits, and does not find at once that a descriptor is no file. */
static void waits(void)
{
	const long long before = used_time();

	usleep(300000);
	CHECK(used_time() - before < 150000);
}

/* The first descriptor of the program's limit from `first` on; -1 if there is none. */
static int next_descriptor(int first)
{
	for (int descriptor = first; descriptor < sysconf(_SC_OPEN_MAX) && descriptor < 65536; descriptor++)
		if (fcntl(descriptor, F_GETFD) >= 0)
			return descriptor;
	return -1;
}

static void close_all(int way)
{
	const int last = (int)sysconf(_SC_OPEN_MAX);

	switch (way) {
	case 0: CHECK(close_range(3, ~0U, 0) == 0); break;
	case 1: closefrom(3); break;
	case 2:
		for (int descriptor = 3; descriptor < last && descriptor < 65536; descriptor++)
			close(descriptor);
		break;
	case 3: CHECK(syscall(SYS_close_range, 3, ~0U, 0) == 0); break;
	}
}

/* A program that closes every descriptor that it does not know, before it has a connection. */
static void check_own(void)
{
	struct stat status;
	int files[64];
	int node, own;

	for (int way = 0; way < 3; way++) {
		node = open_node(0);
		CHECK(create(node) == 0);
		close_all(way);
		CHECK(fcntl(node, F_GETFD) == -1 && errno == EBADF);
		/* What is left is the library's, and is so for every function. */
		CHECK((own = next_descriptor(3)) >= 500);
		CHECK(close(own) == -1 && errno == EBADF);
		CHECK(dup2(2, own) == -1 && errno == EBUSY);
		CHECK(dup3(2, own, 0) == -1 && errno == EBUSY);
		CHECK(close_range((unsigned)own, (unsigned)own, 0) == 0 && fcntl(own, F_GETFD) >= 0);
		waits();
		for (int index = 0; index < 64; index++)
			CHECK((files[index] = memfd_create("file", MFD_CLOEXEC)) >= 0);
		node = open_node(0);
		CHECK(works(node) && create(node) == 0 && destroy(node, 0) == 0 && close(node) == 0);
		for (int index = 0; index < 64; index++)
			CHECK(fstat(files[index], &status) == 0 && status.st_size == 0 && close(files[index]) == 0);
	}
}

/* The library does not see system calls: it ends then. */
static void check_loss(void)
{
	struct stat status;
	int files[64];
	int node;

	node = open_node(0);
	CHECK(works(node));
	close_all(3);
	waits();
	for (int index = 0; index < 64; index++)
		CHECK((files[index] = memfd_create("file", MFD_CLOEXEC)) >= 0);
	CHECK(open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC) == -1 && errno == EBADF);
	for (int index = 0; index < 64; index++)
		CHECK(fstat(files[index], &status) == 0 && status.st_size == 0);
}

int main(void)
{
	/* A program that hangs is ended. */
	alarm(100);
	check_own();
	check_copies();
	check_ends();
	check_reuse();
	check_threads();
	check_signals();
	check_connection(INADDR_LOOPBACK);
	/* This host, too. */
	check_connection(INADDR_ANY);
	check_children();
	check_loss();
	puts("rdma_cm: copies, ends, reused numbers, threads, signals, connections, children, descriptors of the library");
	return 0;
}
