/*
 * behind.h - the distribution's libibverbs behind this library, and whose an object is.
 */
#ifndef DROPIN_BEHIND_H
#define DROPIN_BEHIND_H

#include <stdlib.h>

#include <rdma_core.h>
#include <rdma_dropin.h>

#include <linux_fork.h>

/* These are macros around the functions of the same names in some versions of verbs.h. */
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#include "public.h"

#define DROPIN_EXPORT __attribute__((visibility("default")))
/* For a function that IBVERBS_1.0 has too, with other structs (forwarded.h): new programs bind to IBVERBS_1.1. */
#define DROPIN_EXPORT_AGAIN(name)                                                                          \
	__asm__(".symver " #name ", " #name "@@@IBVERBS_1.1");                                             \
	DROPIN_EXPORT

/* The numbers of the nodes IBVERBS_PRIVATE_N that follow 34 in rdma-core: node(number, ...) for each. */
#define LATER_PRIVATE_NODES(node, ...)                                                                     \
	node(57, __VA_ARGS__) node(59, __VA_ARGS__) node(64, __VA_ARGS__) node(65, __VA_ARGS__)
#define PRIVATE_NODES(node, ...) node(34, __VA_ARGS__) LATER_PRIVATE_NODES(node, __VA_ARGS__)
/* Exports what the linker exports in IBVERBS_PRIVATE_34 (libibverbs.map) in the later nodes too. `type` is an ELF type. */
#define PRIVATE_ALIAS(number, name, type)                                                                  \
	"\t.globl dropin_" #number "_" #name "\n\t.type dropin_" #number "_" #name ", " type                \
	"\n\t.set dropin_" #number "_" #name ", " #name                                                     \
	"\n\t.symver dropin_" #number "_" #name ", " #name "@IBVERBS_PRIVATE_" #number "\n"
#define DROPIN_EXPORT_PRIVATE(name, type) __asm__(LATER_PRIVATE_NODES(PRIVATE_ALIAS, name, type))

/* The functions of the distribution's library; NULL where it is not installed or older. */
struct dropin_behind {
#define PUBLIC(name, version) __typeof__(&name) name;
#define PUBLIC_PRIVATE(name) __typeof__(&name) name;
#include "public_names.h"
#undef PUBLIC
#undef PUBLIC_PRIVATE
};

__attribute__((visibility("hidden"))) extern struct dropin_behind behind;

/* A context of a provider: verbs_context.priv, which libibverbs uses for its own contexts only. */
struct dropin_context {
	/* The provider's control table, with NULL in each entry that it does not have. */
	struct rdma_context_ops ops;
	/* The provider's own table, for functions that test its size. */
	const struct rdma_context_ops *provider_ops;
	void *handle;
};

/* ibv_device._ops._dummy1 of the providers' devices. libibverbs neither reads nor writes it. */
__attribute__((visibility("hidden"))) struct ibv_context *dropin_mark(struct ibv_device *device, int cmd_fd);

/* Set while this thread lists or opens devices, which opens files: they are the kernel's (swift_rdma_sysfs). */
__attribute__((visibility("hidden"))) extern __thread bool dropin_is_busy;

/* Calls `visit` for the devices that a list had. */
__attribute__((visibility("hidden"))) void dropin_visit_known(void (*visit)(void *, const struct dropin_device *), void *list);

/* Makes the device known as one of the providers'. Returns 0, or ENOMEM. */
__attribute__((visibility("hidden"))) int dropin_remember(const struct dropin_device *device);

static inline bool is_provided_device(const struct ibv_device *device)
{
	return device->_ops._dummy1 == dropin_mark;
}

/* Whether a provider made the context. A context of libibverbs goes to libibverbs. */
static inline bool is_provided(const struct ibv_context *context)
{
	return is_provided_device(context->device);
}

static inline struct dropin_context *dropin_context(const struct ibv_context *context)
{
	return (struct dropin_context *)(void *)verbs_get_ctx((struct ibv_context *)context)->priv;
}

/* Reports an error as functions that return a pointer do. */
static inline void *no_object(int error)
{
	errno = error;
	return NULL;
}

/* Reports an error as functions that return -1 do. */
static inline int minus_one(int error)
{
	errno = error;
	return -1;
}

/* Reports what the provider explained, if messages are logged; returns the error. */
static inline int explained(const struct ibv_context *context, int error)
{
	const char *text;

	if (error && rdma_logs(rdma_core_of_process(), RDMA_LOG_INFO) && (text = rdma_explanation(error)) != NULL)
		dropin_log_explanation(context->device->name, text);
	return error;
}

/*
 * The body of an exported function. Where the object is libibverbs's, its function is called: EOPNOTSUPP if it has
 * none. Else the entry of the provider's control table: EOPNOTSUPP if it is absent, EPERM in a child of fork(2), whose
 * objects are its parent's (rdma_provider.h, chapter 4).
 */
#define BEHIND_STATUS(context, name, ...)                                                                  \
	do {                                                                                               \
		if (!is_provided(context))                                                                 \
			return behind.name ? behind.name(__VA_ARGS__) : EOPNOTSUPP;                        \
	} while (0)

#define BEHIND_OBJECT(context, name, ...)                                                                  \
	do {                                                                                               \
		if (!is_provided(context))                                                                 \
			return behind.name ? behind.name(__VA_ARGS__) : no_object(EOPNOTSUPP);             \
	} while (0)

#define ENTRY(context, entry) (dropin_context(context)->ops.entry)

#define STATUS(context, entry, ...)                                                                        \
	({                                                                                                 \
		struct ibv_context *const asked = (context);                                               \
		int status = EOPNOTSUPP;                                                                   \
		if (linux_is_forked_child()) {                                                             \
			status = EPERM;                                                                    \
		} else if (ENTRY(asked, entry)) {                                                          \
			rdma_drop_explanation();                                                           \
			status = explained(asked, ENTRY(asked, entry)(__VA_ARGS__));                       \
		}                                                                                          \
		/* Programs print errno as well, which libibverbs sets. */                                 \
		if (status > 0)                                                                            \
			errno = status;                                                                    \
		status;                                                                                    \
	})

/* An object can be made only if `destroy` is present as well. */
#define OBJECT(context, entry, destroy, ...)                                                               \
	({                                                                                                 \
		struct ibv_context *const asked = (context);                                               \
		__typeof__(ENTRY(asked, entry)(__VA_ARGS__)) object = NULL;                                \
		if (linux_is_forked_child()) {                                                             \
			errno = EPERM;                                                                     \
		} else if (!ENTRY(asked, entry) || !ENTRY(asked, destroy)) {                               \
			errno = EOPNOTSUPP;                                                                \
		} else {                                                                                   \
			rdma_drop_explanation();                                                           \
			object = ENTRY(asked, entry)(__VA_ARGS__);                                         \
			if (!object)                                                                       \
				explained(asked, errno);                                                   \
		}                                                                                          \
		object;                                                                                    \
	})

#endif
