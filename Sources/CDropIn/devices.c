#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <stdio.h>
#include <sys/auxv.h>

#include <rdma_sysfs.h>

/* A device of the providers that a list had. It is never freed, as its struct ibv_device is not. */
struct known {
	struct dropin_device device;
	struct known *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct known *all_known;

__thread bool dropin_is_busy;

/* An array that ibv_get_device_list returned follows this. */
struct list {
	/* libibverbs's own list, which keeps its devices alive. */
	struct ibv_device **behind;
	struct ibv_device *devices[];
};

/* The devices while they are collected. */
struct collection {
	struct ibv_device **devices;
	size_t count;
	size_t capacity;
	/* The only device that the program is to see, by RDMA_DEVICE; or NULL. */
	const char *only;
	int error;
};

bool dropin_set_busy(bool is_busy)
{
	const bool before = dropin_is_busy;

	dropin_is_busy = is_busy;
	return before;
}

struct ibv_context *dropin_mark(struct ibv_device *device, int cmd_fd)
{
	(void)device;
	(void)cmd_fd;
	return no_object(ENOSYS);
}

static void add_device(struct collection *found, struct ibv_device *device)
{
	struct ibv_device **grown;

	if (found->only && strcmp(found->only, device->name))
		return;
	if (found->count == found->capacity) {
		grown = realloc(found->devices, (found->capacity * 2 + 8) * sizeof(*grown));
		if (!grown) {
			found->error = ENOMEM;
			return;
		}
		found->devices = grown;
		found->capacity = found->capacity * 2 + 8;
	}
	found->devices[found->count++] = device;
}

static struct known *known_device(const struct ibv_device *device)
{
	struct known *known;

	for (known = __atomic_load_n(&all_known, __ATOMIC_ACQUIRE); known; known = known->next)
		if (known->device.device == device)
			return known;
	return NULL;
}

void dropin_visit_known(void (*visit)(void *list, const struct dropin_device *device), void *list)
{
	struct known *known;

	for (known = __atomic_load_n(&all_known, __ATOMIC_ACQUIRE); known; known = known->next)
		visit(list, &known->device);
}

/* The paths by which programs look for a device: those that libverbs-sysfs.so shows (rdma_sysfs.h). Software devices have no
 * others. UCX uses no device without a file in /dev/infiniband. */
static void name_paths(struct ibv_device *device)
{
	if (!*device->dev_name)
		strcpy(device->dev_name, device->name);
	if (!*device->ibdev_path)
		snprintf(device->ibdev_path, sizeof(device->ibdev_path), RDMA_SYSFS_PATH "/%s", device->name);
}

int dropin_remember(const struct dropin_device *device)
{
	struct known *known;
	int error = 0;

	pthread_mutex_lock(&lock);
	if (!known_device(device->device)) {
		known = malloc(sizeof(*known));
		if (known) {
			known->device = *device;
			known->next = all_known;
			name_paths(device->device);
			device->device->_ops._dummy1 = dropin_mark;
			__atomic_store_n(&all_known, known, __ATOMIC_RELEASE);
		} else {
			error = ENOMEM;
		}
	}
	pthread_mutex_unlock(&lock);
	return error;
}

/* The only device that the program is to see, by RDMA_DEVICE; or NULL. */
const char *dropin_only_device(void)
{
	const char *only = getauxval(AT_SECURE) ? NULL : getenv("RDMA_DEVICE");

	return only && *only ? only : NULL;
}

bool dropin_is_listed(const struct dropin_device *device)
{
	const char *only = dropin_only_device();

	/* A device on request appears where it is asked for only. */
	return only ? !strcmp(only, device->device->name) : !device->on_request;
}

static void add_provided(void *list, const struct dropin_device *device)
{
	struct collection *found = list;
	size_t index;

	if (!dropin_is_listed(device))
		return;
	/* libibverbs serves it. */
	for (index = 0; index < found->count; index++)
		if (!strcmp(found->devices[index]->name, device->device->name))
			return;
	if (dropin_remember(device))
		found->error = ENOMEM;
	else
		add_device(found, device->device);
}

DROPIN_EXPORT_AGAIN(ibv_get_device_list)
struct ibv_device **ibv_get_device_list(int *count)
{
	struct collection found = {.only = dropin_only_device()};
	struct ibv_device **others = NULL;
	struct list *list = NULL;
	size_t index;
	int provided;
	int error = 0;

	if (count)
		*count = 0;
	if (behind.ibv_get_device_list) {
		others = behind.ibv_get_device_list(NULL);
		/* ENOSYS: a kernel without RDMA, which is no error here. */
		error = others || errno == ENOSYS ? 0 : errno;
		for (index = 0; others && others[index]; index++)
			add_device(&found, others[index]);
	}
	/* An error counts if there is no device at all: others are of use without those that cannot be listed. In a child of
	 * fork(2) a lock of the loader may be held by a thread that the child does not have. */
	dropin_is_busy = true;
	provided = linux_is_forked_child() ? EPERM : dropin_list_devices(add_provided, &found);
	dropin_is_busy = false;
	if (!error)
		error = provided;
	if (found.error || (error && !found.count)) {
		error = found.error ? found.error : error;
	} else {
		list = calloc(1, sizeof(*list) + (found.count + 1) * sizeof(*list->devices));
		error = ENOMEM;
	}
	if (list) {
		list->behind = others;
		if (found.count)
			memcpy(list->devices, found.devices, found.count * sizeof(*found.devices));
		if (count)
			*count = (int)found.count;
	} else if (others) {
		behind.ibv_free_device_list(others);
	}
	free(found.devices);
	return list ? list->devices : no_object(error);
}

DROPIN_EXPORT_AGAIN(ibv_free_device_list)
void ibv_free_device_list(struct ibv_device **devices)
{
	struct list *list = (struct list *)(void *)((char *)devices - offsetof(struct list, devices));

	if (!devices)
		return;
	if (list->behind)
		behind.ibv_free_device_list(list->behind);
	free(list);
}

DROPIN_EXPORT_AGAIN(ibv_get_device_name)
const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

DROPIN_EXPORT_AGAIN(ibv_get_device_guid)
__be64 ibv_get_device_guid(struct ibv_device *device)
{
	struct known *known;

	if (!is_provided_device(device))
		return behind.ibv_get_device_guid(device);
	known = known_device(device);
	return known ? known->device.node_guid : 0;
}

DROPIN_EXPORT int ibv_get_device_index(struct ibv_device *device)
{
	/* The number is the kernel's. */
	if (is_provided_device(device) || !behind.ibv_get_device_index)
		return -1;
	return behind.ibv_get_device_index(device);
}

DROPIN_EXPORT_AGAIN(ibv_open_device)
struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct rdma_context opened = {.size = sizeof(opened)};
	struct dropin_device own = {0};
	struct dropin_context *context;
	const struct known *known;
	size_t size;
	int error;

	if (!is_provided_device(device))
		return behind.ibv_open_device(device);
	if (linux_is_forked_child())
		return no_object(EPERM);
	context = calloc(1, sizeof(*context));
	if (!context)
		return NULL;
	dropin_is_busy = true;
	error = dropin_open_device(device->name, &opened, &context->handle);
	dropin_is_busy = false;
	if (error) {
		free(context);
		return no_object(error);
	}
	size = opened.ops->size < sizeof(context->ops) ? opened.ops->size : sizeof(context->ops);
	memcpy(&context->ops, opened.ops, size);
	context->provider_ops = opened.ops;
	verbs_get_ctx(opened.context)->priv = (struct verbs_ex_private *)(void *)context;
	/* The core makes another ibv_device when the description of the device has changed since the list was made. */
	known = known_device(device);
	own.device = opened.context->device;
	own.node_guid = known ? known->device.node_guid : 0;
	error = dropin_remember(&own);
	if (error) {
		dropin_close_device(context->handle);
		free(context);
		return no_object(error);
	}
	linux_mark_process();
	return opened.context;
}

DROPIN_EXPORT_AGAIN(ibv_close_device)
int ibv_close_device(struct ibv_context *context)
{
	struct dropin_context *own;
	int error;

	BEHIND_STATUS(context, ibv_close_device, context);
	if (linux_is_forked_child())
		return minus_one(EPERM);
	own = dropin_context(context);
	error = dropin_close_device(own->handle);
	if (error)
		return minus_one(error);
	free(own);
	return 0;
}

DROPIN_EXPORT struct ibv_context *ibv_import_device(int cmd_fd)
{
	/* A descriptor of the kernel's uverbs. */
	return behind.ibv_import_device ? behind.ibv_import_device(cmd_fd) : no_object(EOPNOTSUPP);
}

/* ---- fork(2): what a provider's device accesses needs no mark (rdma_provider.h, chapter 4) ---- */

DROPIN_EXPORT int ibv_fork_init(void)
{
	rdma_request_fork_safety();
	return behind.ibv_fork_init ? behind.ibv_fork_init() : 0;
}

DROPIN_EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
	return behind.ibv_is_fork_initialized ? behind.ibv_is_fork_initialized() : IBV_FORK_UNNEEDED;
}

DROPIN_EXPORT int ibv_dofork_range(void *base, size_t size)
{
	return behind.ibv_dofork_range ? behind.ibv_dofork_range(base, size) : 0;
}

DROPIN_EXPORT int ibv_dontfork_range(void *base, size_t size)
{
	return behind.ibv_dontfork_range ? behind.ibv_dontfork_range(base, size) : 0;
}
