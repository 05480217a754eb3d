#include "rdma_core.h"

#include <string.h>

/* One explanation for each thread: a verb is called, fails and is explained on one thread. */
static _Thread_local struct {
	int error;
	char message[sizeof(((struct rdma_reason *)0)->text)];
} explanation;

void rdma_keep_explanation(int error, const char *message)
{
	explanation.error = message ? error : 0;
	if (!message)
		return;
	strncpy(explanation.message, message, sizeof(explanation.message) - 1);
	explanation.message[sizeof(explanation.message) - 1] = '\0';
}

void rdma_drop_explanation(void)
{
	explanation.error = 0;
}

const char *rdma_explanation(int error)
{
	return error != 0 && explanation.error == error ? explanation.message : NULL;
}
