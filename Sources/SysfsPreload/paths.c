/*
 * libverbs-sysfs.so, which verbs run preloads: programs that look for RDMA devices in sysfs by themselves find the
 * software devices there.
 *
 * The functions of files.c and directories.c stand in front of the C library's. Paths of a software device in
 * /sys/class/infiniband, /sys/devices/virtual/infiniband and /dev/infiniband are answered with what libibverbs.so.1 of
 * this package says (rdma_sysfs.h). That library is loaded at the first path in one of these directories. All other paths
 * are passed on.
 * A file is a sealed memory file with the contents at the time of open(2). A directory can be listed with opendir(3) and
 * scandir(3), not opened with open(2). /dev/infiniband/rdma_cm: manager.c.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "paths.h"

#include <dlfcn.h>
#include <limits.h>

__thread bool is_inside;

struct functions next_functions;

__attribute__((constructor)) void find_functions(void)
{
#define FIND(name)                                                                                         \
	__atomic_store_n(&next_functions.name, (__typeof__(&name))dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED);
	FUNCTIONS(FIND)
#undef FIND
}

static __typeof__(&swift_rdma_sysfs) view;
struct manager_calls manager_calls;
/* Set when the library has been looked for. */
static bool has_looked;

/* The library beside this one: a program that has loaded libibverbs under `verbs run` has it. Threads may do this at once: a
 * lock would have to wait for that of the dynamic linker. */
static void find_view(void)
{
	char path[PATH_MAX];
	const char *slash;
	Dl_info info;
	void *library;

	if (!dladdr((void *)find_view, &info) || !(slash = strrchr(info.dli_fname, '/')))
		return;
	if ((size_t)snprintf(path, sizeof(path), "%.*s/libibverbs.so.1", (int)(slash - info.dli_fname), info.dli_fname) >=
	    sizeof(path))
		return;
	library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (library) {
		manager_calls.serves = (__typeof__(manager_calls.serves))dlsym(library, "swift_rdma_cm_serves");
		manager_calls.open = (__typeof__(manager_calls.open))dlsym(library, "swift_rdma_cm_open");
		manager_calls.write = (__typeof__(manager_calls.write))dlsym(library, "swift_rdma_cm_write");
		manager_calls.close = (__typeof__(manager_calls.close))dlsym(library, "swift_rdma_cm_close");
		manager_calls.own = (__typeof__(manager_calls.own))dlsym(library, "swift_rdma_cm_own");
		__atomic_store_n(&view, (__typeof__(view))dlsym(library, "swift_rdma_sysfs"), __ATOMIC_RELEASE);
	}
	__atomic_store_n(&has_looked, true, __ATOMIC_RELEASE);
}

/* Copies a path without repeated slashes and "."; ".." takes away the component before it, also if that is a link.
 * Returns false if it does not fit. */
static bool normalize(const char *path, char *normal, size_t size)
{
	size_t length = 0;

	while (*path) {
		size_t count = strcspn(path, "/");

		if (count == 2 && !strncmp(path, "..", 2)) {
			while (length > 0 && normal[--length] != '/')
				;
		} else if (count > 0 && !(count == 1 && *path == '.')) {
			if (length + count + 2 > size)
				return false;
			normal[length++] = '/';
			memcpy(normal + length, path, count);
			length += count;
		}
		path += count;
		path += strspn(path, "/");
	}
	normal[length] = '\0';
	return true;
}

/* Whether the path is the directory or below it; then *rest is the path below it. */
static bool is_below(const char *path, const char *directory, const char **rest)
{
	const size_t length = strlen(directory);

	if (strncmp(path, directory, length) || (path[length] != '\0' && path[length] != '/'))
		return false;
	*rest = path + length + (path[length] == '/');
	return true;
}

/* Asks libibverbs.so.1 what is at the path of the entry. */
static void ask(struct entry *entry)
{
	if (!__atomic_load_n(&has_looked, __ATOMIC_ACQUIRE))
		find_view();
	if (entry->is_manager) {
		if (__atomic_load_n(&view, __ATOMIC_ACQUIRE) && manager_calls.serves())
			entry->kind = RDMA_SYSFS_FILE;
	} else if (__atomic_load_n(&view, __ATOMIC_ACQUIRE)) {
		char *const slash = strchr(entry->path, '/');

		entry->kind = view(entry->path, entry->text, &entry->length);
		if (entry->kind == RDMA_SYSFS_NONE && slash) {
			/* No such file of a device that is ours: the kernel has none either. */
			*slash = '\0';
			if (view(entry->path, entry->text, &entry->length) != RDMA_SYSFS_NONE)
				entry->kind = -ENOENT;
		}
	}
}

struct entry *look_up(const char *path)
{
	char normal[PATH_MAX];
	const char *rest;
	const int saved = errno;
	struct entry *entry = NULL;
	bool is_node;

	if (!normalize(path, normal, sizeof(normal)))
		return NULL;
	is_node = is_below(normal, NODE_PATH, &rest);
	if (is_node ? !*rest || strchr(rest, '/') :
		      !is_below(normal, RDMA_SYSFS_PATH, &rest) && !is_below(normal, VIRTUAL_PATH, &rest))
		return NULL;
	/* Without memory the path is the kernel's. */
	if (strlen(rest) >= sizeof(entry->path) || !(entry = malloc(sizeof(*entry))))
		return NULL;
	strcpy(entry->path, rest);
	entry->is_node = is_node;
	entry->is_manager = is_node && !strcmp(rest, "rdma_cm");
	entry->is_virtual = !is_node && is_below(normal, VIRTUAL_PATH, &rest);
	entry->kind = RDMA_SYSFS_NONE;
	INSIDE((ask(entry), 0));
	errno = saved;
	if (entry->kind != RDMA_SYSFS_NONE)
		return entry;
	free(entry);
	return NULL;
}
