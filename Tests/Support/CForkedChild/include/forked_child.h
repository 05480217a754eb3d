// Children of fork(2), which Swift cannot call, for tests of what fork(2) means for registered memory and open devices.
#ifndef FORKED_CHILD_H
#define FORKED_CHILD_H

#include <stddef.h>
#include <infiniband/verbs.h>

enum child_act {
	CHILD_WRITES, /* writes into the memory for 20 ms, then _exit(2) */
	CHILD_EXITS,  /* exit(3), which runs the handlers of atexit(3) */
	CHILD_EXECS,  /* execs true(1) */
	CHILD_POSTS,  /* calls each function of the data path once */
	CHILD_CALLS,  /* calls `body` */
};

struct child_orders {
	enum child_act act;
	/* The memory that it writes into. */
	void *memory[2];
	size_t size;
	/* The objects whose functions it calls. `qp` has wr_send, `cq` is extended. */
	struct ibv_qp *qp;
	struct ibv_cq_ex *cq;
	int (*body)(void *context);
	void *context;
};

/* What the functions answered in the child; wr_complete after a complete request. */
struct child_answers {
	int post_send, post_recv, poll_cq, req_notify_cq, wr_complete, start_poll;
};

/* Forks a child with these orders, and returns its process ID, or a negative errno value. The child ends with status 0 or
 * with that of `body`; after 20 s SIGALRM ends it. With CHILD_POSTS it writes `struct child_answers` to *answers_fd. */
int fork_child(const struct child_orders *orders, int *answers_fd);

/* Waits for the child: its exit status, or 128 and the number of the signal that ended it. */
int wait_for_child(int pid);

#endif
