/*
 * A provider for the tests of the loader, from the header alone. It opens and closes a context, and
 * nothing else. What it does wrong is said in the file <path of this library>.conf, in lines of
 * `key value`; what happens to it is added to <path of this library>.trace, one letter for each event:
 * m mapped, e entry called, p probed, o opened, c closed.
 *
 * -DNO_ENTRY leaves the entry point out, -DUNDEFINED needs a symbol that nobody has.
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
void nobody_has_this_symbol(void);
#endif

__attribute__((constructor)) static void mapped(void)
{
	Dl_info info;

	if (dladdr((void *)&own_path, &info))
		snprintf(own_path, sizeof(own_path), "%s", info.dli_fname);
	trace("m");
#ifdef UNDEFINED
	nobody_has_this_symbol();
#endif
}

#ifndef NO_ENTRY

/* What is never freed: a leak checker finds it here. */
static void *kept[64];
static size_t kept_count;

static void *keep(void *memory)
{
	if (kept_count == sizeof(kept) / sizeof(kept[0]))
		abort();
	return kept[kept_count++] = memory;
}

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

static uint32_t number(const char *key, uint32_t otherwise)
{
	const char *value = setting(key);

	return value ? (uint32_t)strtoul(value, NULL, 0) : otherwise;
}

static int close_context(struct ibv_context *context)
{
	trace("c");
	rdma_fini_context(context);
	free(verbs_get_ctx(context));
	return 0;
}

static struct rdma_context_ops ops = { .size = sizeof(ops), .close_context = close_context };

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

static int open_device(const struct rdma_device *device, struct rdma_context *answer, struct rdma_reason *why)
{
	static struct ibv_device stranger;
	const char *reason = setting("open-fails");
	struct verbs_context *verbs;

	trace("o");
	if (reason) {
		rdma_set_reason(why, reason);
		return (int)number("open-errno", EACCES);
	}
	if (setting("no-context"))
		return 0;
	verbs = calloc(1, sizeof(*verbs));
	if (!verbs)
		return ENOMEM;
	answer->context = rdma_init_context(verbs, setting("strange-device") ? &stranger : device->device, -1, -1, 1);
	if (setting("short-context"))
		verbs->sz = sizeof(*verbs) - 8;
	if (setting("no-close")) {
		ops.close_context = NULL;
		keep(verbs);
	}
	answer->ops = &ops;
	return 0;
}

/* Larger than this core's struct, as that of a newer header is. */
static struct {
	struct rdma_provider provider;
	uint64_t more[4];
} answer = {
	.provider = {
		.kernel_abi_max = UINT32_MAX,
		.probe_device = probe_device,
		.open_device = open_device,
	},
};

__attribute__((visibility("default"))) const struct rdma_provider *
rdma_provider_entry(const struct rdma_core *core, struct rdma_reason *why)
{
	struct rdma_provider *provider = &answer.provider;
	const char *reason = setting("refuses");

	trace("e");
	if (reason) {
		rdma_set_reason(why, reason);
		return NULL;
	}
	if (setting("logs"))
		core->log((enum rdma_log_level)number("logs-level", RDMA_LOG_WARNING), "logger", setting("logs"));
	provider->size = number("size", sizeof(*provider));
	provider->abi_major = (uint16_t)number("major", core->abi_major);
	provider->abi_minor = (uint16_t)number("minor", core->abi_minor);
	provider->name = setting("nameless") ? NULL : setting("name") ? setting("name") : "acme";
	provider->version = setting("version");
	provider->vendor = setting("vendor");
	provider->kernel_abi_min = number("kernel-min", 0);
	provider->kernel_abi_max = number("kernel-max", UINT32_MAX);
	return provider;
}

#endif
