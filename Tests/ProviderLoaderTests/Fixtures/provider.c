/*
 * A provider for the tests of the loader, from the header alone. It only opens and closes a context. The file
 * <path of this library>.conf configures its faults, in lines of `key value`. It appends one letter for each
 * event to <path of this library>.trace: m mapped, e entry called, l devices listed, p probed, i device state made,
 * o opened, c closed, f device state freed.
 *
 * -DNO_ENTRY leaves the entry point out; -DUNDEFINED adds a reference to an undefined symbol.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rdma_provider.h"

static char own_path[4096];

static void trace(const char *event)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof(path), "%s.trace", own_path);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd >= 0) {
		if (write(fd, event, 1) != 1)
			abort();
		close(fd);
	}
}

#ifdef UNDEFINED
void undefined_symbol(void);
#endif

__attribute__((constructor)) static void mapped(void)
{
	Dl_info info;

	if (dladdr((void *)&own_path, &info))
		snprintf(own_path, sizeof(own_path), "%s", info.dli_fname);
	trace("m");
#ifdef UNDEFINED
	undefined_symbol();
#endif
}

#ifndef NO_ENTRY

/* Memory that is never freed, referenced here for a leak checker. */
static void *kept[4096];
static size_t kept_count;

static void *keep(void *memory)
{
	if (kept_count == sizeof(kept) / sizeof(kept[0]))
		abort();
	return kept[kept_count++] = memory;
}

static const struct rdma_core *the_core;

/* The value of a key, or NULL. */
static const char *setting(const char *key)
{
	char path[4200], line[512];
	size_t length = strlen(key);
	const char *value = NULL;
	FILE *file;

	snprintf(path, sizeof(path), "%s.conf", own_path);
	file = fopen(path, "r");
	if (!file)
		return NULL;
	while (!value && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, key, length) && line[length] == ' ')
			value = keep(strdup(line + length + 1));
	}
	fclose(file);
	return value;
}

static uint32_t number(const char *key, uint32_t default_value)
{
	const char *value = setting(key);

	return value ? (uint32_t)strtoul(value, NULL, 0) : default_value;
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t attr_size)
{
	(void)context;
	(void)port;
	(void)attr;
	(void)attr_size;
	return 0;
}

/* Slots that a later verbs.h has in front of struct verbs_context, in bytes. */
static size_t later_slots;

static int close_context(struct ibv_context *context)
{
	trace("c");
	rdma_fini_context(context);
	free((char *)verbs_get_ctx(context) - later_slots);
	return 0;
}

/* The extensions "acme-numbers" of the provider, of the device and of a context: version 2 only. */
static const int numbers[] = { 1, 2, 3 };
static int wants_numbers;

static const void *query_extension(const struct rdma_device *device, const char *name, uint32_t version)
{
	return version == 2 && !strcmp(name, "acme-numbers") ? &numbers[device ? 1 : 0] : NULL;
}

static const void *query_context_extension(struct ibv_context *context, const char *name, uint32_t version)
{
	(void)context;
	return version == 2 && !strcmp(name, "acme-numbers") && wants_numbers ? &numbers[2] : NULL;
}

static struct rdma_context_ops ops = {
	.size = sizeof(ops), .close_context = close_context, .query_port = query_port,
	.query_extension = query_context_extension,
};

static int device_state;

static int init_device(const struct rdma_device *device, void **state, struct rdma_reason *why)
{
	const char *reason = setting("init-fails");

	trace("i");
	if (device->provider_state)
		abort();
	if (reason) {
		rdma_set_reason(why, reason);
		return ENOMEM;
	}
	*state = &device_state;
	return 0;
}

static void fini_device(const struct rdma_device *device, void *state)
{
	if (state != &device_state || device->provider_state)
		abort();
	trace("f");
}

/* Lists the devices <list>0, <list>1, ... Faults: list-fails, list-count (the number that it claims), list-grows (the
 * number that it claims beyond the capacity), list-stride (the distance it takes), list-name, list-over (writes
 * beyond the capacity). */
static int list_devices(struct rdma_software_device *devices, size_t stride, uint32_t capacity, uint32_t *count)
{
	const char *reason = setting("list-fails"), *prefix = setting("list"), *name = setting("list-name");
	uint32_t number_of = number("list-number", 1);
	uint64_t cookie = setting("list-cookie") ? strtoull(setting("list-cookie"), NULL, 0) : 0;

	trace("l");
	if (reason)
		return rdma_explain(the_core, EACCES, reason);
	stride = number("list-stride", (uint32_t)stride);
	for (uint32_t index = 0; index < number_of; index++) {
		struct rdma_software_device device = {
			.node_type = IBV_NODE_CA, .flags = number("list-flags", 0), .cookie = cookie + index,
		};

		if (index == 0 && name)
			snprintf(device.name, sizeof(device.name), "%s", name);
		else
			snprintf(device.name, sizeof(device.name), "%s%u", prefix, index);
		if (setting("list-location"))
			snprintf(device.location, sizeof(device.location), "%s %u", setting("list-location"), index);
		rdma_add_software_device(devices, stride, capacity, count, &device);
	}
	if (setting("list-over"))
		memset((char *)devices + capacity * stride, 'x', 8);
	if (setting("list-grows"))
		*count = capacity + number("list-grows", 1);
	*count = number("list-count", *count);
	return 0;
}

static int probe_device(const struct rdma_device *device, struct rdma_reason *why)
{
	const char *reason = setting("probe-fails");

	(void)device;
	trace("p");
	if (!reason)
		return 0;
	rdma_set_reason(why, reason);
	return ENODEV;
}

static int open_device(const struct rdma_device *device, const struct rdma_open_attr *attr,
		       struct rdma_context *opened, struct rdma_reason *why)
{
	static struct ibv_device other_device;
	const char *reason = setting("open-fails");
	struct verbs_context *verbs;
	uint32_t index;

	trace("o");
	if (attr->size < sizeof(*attr) || attr->cmd_fd != -1)
		abort();
	for (index = 0; index < attr->extension_count; index++)
		wants_numbers |= !strcmp(attr->extensions[index], "acme-numbers");
	if (device->provider_state != (setting("device-state") ? &device_state : NULL))
		abort();
	if (reason) {
		rdma_set_reason(why, reason);
		return (int)number("open-errno", EACCES);
	}
	if (setting("no-context"))
		return 0;
	later_slots = number("later-slots", 0) * sizeof(void *);
	verbs = calloc(1, sizeof(*verbs) + later_slots);
	if (!verbs)
		return ENOMEM;
	verbs = (struct verbs_context *)((char *)verbs + later_slots);
	opened->context = rdma_init_context(verbs, setting("strange-device") ? &other_device : device->device, -1, -1, 1);
	verbs->sz += later_slots;
	if (setting("short-context"))
		verbs->sz = sizeof(*verbs) - offsetof(struct verbs_context, query_port) - 8;
	ops.size = number("table-size", sizeof(ops));
	if (setting("no-close")) {
		ops.close_context = NULL;
		keep(verbs);
	}
	opened->ops = &ops;
	return 0;
}

/* Larger than this core's struct rdma_provider, like that of a newer header. */
static struct {
	struct rdma_provider provider;
	uint64_t more[4];
} description = {
	.provider = {
		.kernel_abi_max = UINT32_MAX,
		.probe_device = probe_device,
		.open_device = open_device,
		.query_extension = query_extension,
	},
};

__attribute__((visibility("default"))) const struct rdma_provider *
rdma_provider_entry(const struct rdma_core *core, struct rdma_reason *why)
{
	struct rdma_provider *provider = &description.provider;
	const char *reason = setting("refuses");

	trace("e");
	the_core = core;
	if (reason) {
		rdma_set_reason(why, reason);
		return NULL;
	}
	if (setting("logs"))
		core->log((enum rdma_log_level)number("logs-level", RDMA_LOG_WARNING), "logger", setting("logs"));
	provider->size = number("size", sizeof(*provider));
	provider->abi_major = (uint16_t)number("major", core->abi_major);
	provider->abi_minor = (uint16_t)number("minor", core->abi_minor);
	provider->list_devices = setting("list") ? list_devices : NULL;
	provider->init_device = setting("device-state") ? init_device : NULL;
	provider->fini_device = setting("device-state") ? fini_device : NULL;
	provider->name = setting("nameless") ? NULL : setting("name") ? setting("name") : "acme";
	provider->version = setting("version");
	provider->vendor = setting("vendor");
	provider->kernel_abi_min = number("kernel-min", 0);
	provider->kernel_abi_max = number("kernel-max", UINT32_MAX);
	return provider;
}

#endif
