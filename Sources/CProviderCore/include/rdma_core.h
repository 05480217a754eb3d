/*
 * rdma_core.h - the core's side of the provider ABI: functions that the core applies to a context that a provider
 * returned from open_device. No provider includes it.
 */
#ifndef RDMA_CORE_H
#define RDMA_CORE_H

#include "rdma_package.h"
#include "rdma_provider.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the package: rdma_core.version, and the version that the tool shows. */
#define RDMA_CORE_VERSION RDMA_PACKAGE_VERSION

/* The directory of the driver files, with the override directory override.d in it, and the directory of the libraries
 * that they name by a relative path. A packager sets them with -Xcc -DRDMA_CONFIGURATION_DIRECTORY='"/path"'. */
#ifndef RDMA_CONFIGURATION_DIRECTORY
#define RDMA_CONFIGURATION_DIRECTORY "/etc/ibverbs.d"
#endif
#ifndef RDMA_PROVIDER_DIRECTORY
#define RDMA_PROVIDER_DIRECTORY "/usr/lib/rdma-providers"
#endif

/* Functions, because Swift does not import macros that are defined on the command line. */
static inline const char *rdma_configuration_directory(void)
{
	return RDMA_CONFIGURATION_DIRECTORY;
}

static inline const char *rdma_provider_directory(void)
{
	return RDMA_PROVIDER_DIRECTORY;
}

/* The smallest verbs_context.sz that the core accepts: that of rdma-core 44, whose first slot is query_port. The struct
 * grows at its front, so this distance from the end is the same in every verbs.h. */
static inline size_t rdma_oldest_verbs_context(void)
{
	return sizeof(struct verbs_context) - offsetof(struct verbs_context, query_port);
}

/* Makes the inline functions of verbs.h safe on a context that is not foreign: fills the null slots of
 * context->ops with functions that return EOPNOTSUPP, and the slots of struct verbs_context from the
 * control table. */
void rdma_adopt_context(const struct rdma_context *opened);

/* The functions with which rdma_adopt_context fills null slots of context->ops; `verbs info` compares with them. */
extern const struct ibv_context_ops rdma_unsupported_ops;

/* ibv_get_cq_event(3) and ibv_get_async_event(3) for any provider: they call the provider's function if it has one, and
 * otherwise read the kernel's record and call the provider's hook. Return 0, or a positive errno value (EAGAIN: no
 * event is queued and the descriptor has O_NONBLOCK; EINTR; EIO: the device is gone). */
int rdma_get_cq_event(const struct rdma_context_ops *ops, struct ibv_comp_channel *channel, struct ibv_cq **cq);
int rdma_get_async_event(const struct rdma_context_ops *ops, struct ibv_context *context,
			 struct ibv_async_event *event);

/* The struct rdma_core of this process, zeroed but for log_level, which is RDMA_LOG_WARNING until it is set. */
struct rdma_core *rdma_core_of_process(void);
/* Sets RDMA_CORE_FORK_SAFE in rdma_core.flags, from any thread. */
void rdma_request_fork_safety(void);
/* Sets rdma_core.log_level, from any thread. */
void rdma_set_log_level(enum rdma_log_level level);

/* rdma_core.kernel. In Swift, in the module KernelOps: a C function, so that the modules above it need not import it and,
 * with it, the kernel's headers. */
const struct rdma_kernel_ops *rdma_core_kernel_ops(void);

/* rdma_core.explain: stores the explanation for this thread. */
void rdma_keep_explanation(int error, const char *message);
/* Drops this thread's explanation. The core calls it before each function of the control table. */
void rdma_drop_explanation(void);
/* This thread's explanation of `error`, or NULL. Valid until the next of these three calls. */
const char *rdma_explanation(int error);

/* ibv_ack_cq_events(3) and ibv_ack_async_event(3), which access public fields only. */
void rdma_ack_cq_events(struct ibv_cq *cq, uint32_t count);
void rdma_ack_async_event(const struct ibv_async_event *event);

#ifdef __cplusplus
}
#endif

#endif
