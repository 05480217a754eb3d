#define _GNU_SOURCE
#include "forked_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void write_memory(const struct child_orders *orders)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (int i = 0; i < 2; i++)
			memset(orders->memory[i], 0xee, orders->size);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 20);
}

static struct child_answers post(const struct child_orders *orders)
{
	/* Every provider's queue pairs are extended ones; ibv_qp_to_qp_ex knows those of libibverbs only. */
	struct ibv_qp_ex *extended = (struct ibv_qp_ex *)orders->qp;
	struct ibv_send_wr send = { .opcode = IBV_WR_SEND }, *bad_send;
	struct ibv_recv_wr receive = { .next = NULL }, *bad_receive;
	struct ibv_poll_cq_attr attr = { 0 };
	struct child_answers answers;
	struct ibv_wc completion;

	answers.post_send = ibv_post_send(orders->qp, &send, &bad_send);
	answers.post_recv = ibv_post_recv(orders->qp, &receive, &bad_receive);
	answers.poll_cq = ibv_poll_cq(ibv_cq_ex_to_cq(orders->cq), 1, &completion);
	answers.req_notify_cq = ibv_req_notify_cq(ibv_cq_ex_to_cq(orders->cq), 0);
	ibv_wr_start(extended);
	ibv_wr_send(extended);
	ibv_wr_set_sge_list(extended, 0, NULL);
	answers.wr_complete = ibv_wr_complete(extended);
	answers.start_poll = ibv_start_poll(orders->cq, &attr);
	return answers;
}

_Noreturn static void obey(const struct child_orders *orders, int answers_fd)
{
	struct child_answers answers;

	alarm(20);
	switch (orders->act) {
	case CHILD_WRITES:
		write_memory(orders);
		_exit(0);
	case CHILD_EXITS:
		exit(0);
	case CHILD_EXECS:
		execlp("true", "true", (char *)NULL);
		_exit(127);
	case CHILD_POSTS:
		answers = post(orders);
		_exit(write(answers_fd, &answers, sizeof(answers)) != sizeof(answers));
	case CHILD_CALLS:
		_exit(orders->body(orders->context));
	}
	_exit(126);
}

int fork_child(const struct child_orders *orders, int *answers_fd)
{
	int ends[2], pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		obey(orders, ends[1]);
	if (pid < 0)
		pid = -errno;
	close(ends[1]);
	*answers_fd = ends[0];
	return pid;
}

int wait_for_child(int pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
