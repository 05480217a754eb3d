/*
 * rdma_dropin.h - between the two halves of the library that stands in front of the distribution's libibverbs: the
 * exported functions in C, and the module DropIn in Swift, which lists and opens devices with ProviderLoader.
 */
#ifndef RDMA_DROPIN_H
#define RDMA_DROPIN_H

#include <stdbool.h>

#include <rdma_provider.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A software device, as dropin_list_devices describes it. */
struct dropin_device {
	/* Lives as long as the process; the same for each listing of the device. */
	struct ibv_device *device;
	__be64 node_guid;
	/* The device is opened on request only (RDMA_SOFTWARE_DEVICE_ON_REQUEST). */
	bool on_request;
};

/* Calls `add` for each software device. Returns 0, or the errno value that kept devices from being listed. */
int dropin_list_devices(void (*add)(void *list, const struct dropin_device *device), void *list);

/* Opens a device by its name and fills *opened. *handle is for dropin_close_device. Returns 0, or an errno value, and
 * logs the reason. */
int dropin_open_device(const char *name, struct rdma_context *opened, void **handle);

/* Closes the context. Returns 0, or an errno value, after which it is open still. */
int dropin_close_device(void *handle);

/* Whether a program that lists its devices finds this one. */
bool dropin_is_listed(const struct dropin_device *device);

/* The only device that the program is to see, by RDMA_DEVICE; or NULL. */
const char *dropin_only_device(void);

/* Marks this thread as one in the library: paths that it opens are the kernel's. Returns the mark that it had. */
bool dropin_set_busy(bool is_busy);

/* /dev/infiniband/rdma_cm, as rdma_sysfs.h describes it. */
bool dropin_cm_serves(void);
int dropin_cm_open(int flags);
int dropin_cm_write(int file, const void *bytes, size_t length);
void dropin_cm_close(int file);
int dropin_cm_own(unsigned first, unsigned last);

/* The path of the distribution's library, or NULL where there is none. */
const char *dropin_behind_path(void);

/* The N of its node IBVERBS_PRIVATE_N, or 0 where there is no library, or it has a node that is not known here. */
int dropin_behind_node(void);

/* The N of a provider's verbs_register_driver_N that was called in vain, because the library behind has another node. 0 if
 * there was none since the last call. */
int dropin_take_refused_node(void);

/* Logs what a provider said about an error that it returned on this thread. */
void dropin_log_explanation(const char *device, const char *explanation);

#ifdef __cplusplus
}
#endif

#endif
