#ifndef SWIFT_RDMA_CRDMACM_H
#define SWIFT_RDMA_CRDMACM_H

#include <errno.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>

/* One call of rdma_connect(3) in a thread of its own. `done` gets 0 or the errno value. */
struct rdmacm_dial {
	struct rdma_cm_id *id;
	struct rdma_conn_param parameters;
	void (*done)(void *context, int code);
	void *context;
};

/*
 * The start routine of that thread, in C: pthread_cancel(3) unwinds it while it is in the system call, and `done` is not
 * called then.
 */
static void *rdmacm_dial_run(void *argument)
{
	struct rdmacm_dial *dial = argument;
	int code = 0;

	errno = 0;
	if (rdma_connect(dial->id, &dial->parameters) != 0)
		code = errno != 0 ? errno : EIO;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	dial->done(dial->context, code);
	return NULL;
}

#endif
