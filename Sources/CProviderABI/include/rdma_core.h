/*
 * rdma_core.h - the core's side of the waist: what the core does to a context that a provider handed
 * out. Providers do not need it.
 */
#ifndef RDMA_CORE_H
#define RDMA_CORE_H

#include "rdma_provider.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the package, as providers are told it and the tool shows it. */
#define RDMA_CORE_VERSION "0.1.0"

/* Where driver files lie, with the override directory override.d under it, and where the libraries lie that
 * they name by a relative path. A packager sets them with -Xcc -DRDMA_...='"/path"'. */
#ifndef RDMA_CONFIGURATION_DIRECTORY
#define RDMA_CONFIGURATION_DIRECTORY "/etc/ibverbs.d"
#endif
#ifndef RDMA_PROVIDER_DIRECTORY
#define RDMA_PROVIDER_DIRECTORY "/usr/lib/rdma-providers"
#endif

/* The providers that are linked into every program of this package. */
const struct rdma_provider *rdma_provider_entry_libibverbs(const struct rdma_core *core, struct rdma_reason *why);
const struct rdma_provider *rdma_provider_entry_soft(const struct rdma_core *core, struct rdma_reason *why);

/* Makes the inline functions of verbs.h safe on a context that is not foreign: fills the null slots of
 * context->ops with functions that answer EOPNOTSUPP, and the slots of struct verbs_context from the
 * control table. */
void rdma_adopt_context(const struct rdma_context *opened);

/* The functions that stand in for an absent one in context->ops; a test and `verbs info` compare. */
extern const struct ibv_context_ops rdma_unsupported_ops;

/* ibv_get_cq_event(3) and ibv_get_async_event(3) over any provider: from the provider where it has the
 * call, else from the kernel's record, with the provider's hook called. 0, or a positive errno value
 * (EAGAIN: nothing waits on a descriptor with O_NONBLOCK; EINTR; EIO: the device is gone). */
int rdma_get_cq_event(const struct rdma_context_ops *ops, struct ibv_comp_channel *channel, struct ibv_cq **cq);
int rdma_get_async_event(const struct rdma_context_ops *ops, struct ibv_context *context,
			 struct ibv_async_event *event);

/* ibv_ack_cq_events(3), ibv_ack_async_event(3): they touch public fields only. */
void rdma_ack_cq_events(struct ibv_cq *cq, uint32_t count);
void rdma_ack_async_event(const struct ibv_async_event *event);

#ifdef __cplusplus
}
#endif

#endif
