#include "rdma_core.h"

static struct rdma_core core = { .log_level = RDMA_LOG_WARNING };

struct rdma_core *rdma_core_of_process(void)
{
	return &core;
}

void rdma_request_fork_safety(void)
{
	__atomic_fetch_or(&core.flags, RDMA_CORE_FORK_SAFE, __ATOMIC_RELAXED);
}

void rdma_set_log_level(enum rdma_log_level level)
{
	__atomic_store_n(&core.log_level, (uint32_t)level, __ATOMIC_RELAXED);
}
