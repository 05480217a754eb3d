/*
 * A program that is not linked with libibverbs, and finds it as NCCL and others do: dlopen(3), then dlvsym(3) with the version
 * nodes that it was written for. Prints what it has proved, or what is wrong; the exit status says which.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void *library;

static void *find(const char *name, const char *version)
{
	void *symbol = dlvsym(library, name, version);

	if (!symbol) {
		fprintf(stderr, "%s@%s is absent: %s\n", name, version, dlerror());
		exit(1);
	}
	return symbol;
}

/* Whether a child's list has kernel devices at most. */
static int lacks(struct ibv_device **list, const char *name)
{
	if (!list)
		return errno == EPERM;
	for (; *list; list++)
		if (!strcmp((*list)->name, name))
			return 0;
	return 1;
}

#define FUNCTION(name, version) __typeof__(&name) my_##name = find(#name, version)

#undef ibv_reg_mr
#undef ibv_reg_mr_iova2

/* IBVERBS_1.16, later than rdma-core 44. */
int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed);

int main(int count, char **names)
{
	FILE *maps;
	char line[4096];
	int copies = 0;
	int devices;
	int index;
	int status;
	uint64_t speed;
	static char memory[4096];
	struct ibv_device **list;
	struct ibv_device *device = NULL;
	struct ibv_context *context;
	struct ibv_device_attr attr;
	struct ibv_port_attr port;
	union ibv_gid gid;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	pid_t child;

	CHECK(count == 3); /* names of the library, and of the device */
	library = dlopen(names[1], RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	/* Both names lead to one library. */
	CHECK(dlopen("libibverbs.so.1", RTLD_NOW) == library);
	CHECK(dlopen("libibverbs.so", RTLD_NOW) == library);
	CHECK(dlsym(library, "swift_rdma_libibverbs"));

	FUNCTION(ibv_get_device_list, "IBVERBS_1.1");
	FUNCTION(ibv_free_device_list, "IBVERBS_1.1");
	FUNCTION(ibv_get_device_name, "IBVERBS_1.1");
	FUNCTION(ibv_get_device_guid, "IBVERBS_1.1");
	FUNCTION(ibv_get_device_index, "IBVERBS_1.9");
	FUNCTION(ibv_open_device, "IBVERBS_1.1");
	FUNCTION(ibv_close_device, "IBVERBS_1.1");
	FUNCTION(ibv_query_device, "IBVERBS_1.1");
	FUNCTION(ibv_query_gid, "IBVERBS_1.1");
	FUNCTION(ibv_alloc_pd, "IBVERBS_1.1");
	FUNCTION(ibv_dealloc_pd, "IBVERBS_1.1");
	FUNCTION(ibv_reg_mr, "IBVERBS_1.1");
	FUNCTION(ibv_reg_mr_iova2, "IBVERBS_1.8");
	FUNCTION(ibv_dereg_mr, "IBVERBS_1.1");
	FUNCTION(ibv_import_device, "IBVERBS_1.10");
	FUNCTION(ibv_query_ece, "IBVERBS_1.10");
	FUNCTION(ibv_reg_dmabuf_mr, "IBVERBS_1.12");
	FUNCTION(ibv_query_port_speed, "IBVERBS_1.16");
	find("ibv_inc_comp_cntr", "IBVERBS_1.18");
	find("ibv_open_device", "IBVERBS_1.0");
	CHECK(my_ibv_query_ece);
	/* The distribution's own libraries find what is private to them. */
	find("verbs_set_ops", "IBVERBS_PRIVATE_34");

	list = my_ibv_get_device_list(&devices);
	CHECK(list);
	for (index = 0; index < devices; index++)
		if (!strcmp(my_ibv_get_device_name(list[index]), names[2]))
			device = list[index];
	CHECK(!list[devices]);
	CHECK(device);
	CHECK(my_ibv_get_device_guid(device) != 0);
	CHECK(my_ibv_get_device_index(device) == -1);
	context = my_ibv_open_device(device);
	CHECK(context);
	my_ibv_free_device_list(list);
	/* The device outlives its list. */
	CHECK(!strcmp(my_ibv_get_device_name(context->device), names[2]));

	CHECK(my_ibv_query_device(context, &attr) == 0 && attr.phys_port_cnt == 1);
	/* The inline function of verbs.h, which would need the symbol. */
	CHECK(verbs_get_ctx(context)->query_port(context, 1, &port, sizeof(port)) == 0 && port.state == IBV_PORT_ACTIVE &&
	      port.link_layer == IBV_LINK_LAYER_ETHERNET);
	CHECK(verbs_get_ctx(context)->query_port(context, 2, &port, sizeof(port)) == EINVAL);
	CHECK(my_ibv_query_gid(context, 1, 0, &gid) == 0 && gid.raw[15] != 0);
	CHECK(my_ibv_query_gid(context, 1, 255, &gid) == -1);
	/* What the provider lacks is refused, on an object of its own. */
	status = my_ibv_query_port_speed(context, 1, &speed);
	CHECK(status == 0 || status == EOPNOTSUPP);
	CHECK(!my_ibv_import_device(-1));

	pd = my_ibv_alloc_pd(context);
	CHECK(pd);
	mr = my_ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	CHECK(mr && mr->pd == pd && mr->length == sizeof(memory));
	CHECK(my_ibv_dereg_mr(mr) == 0);
	mr = my_ibv_reg_mr_iova2(pd, memory, sizeof(memory), 0x1000, IBV_ACCESS_LOCAL_WRITE);
	CHECK(mr && my_ibv_dereg_mr(mr) == 0);
	errno = 0;
	CHECK(!my_ibv_reg_dmabuf_mr(pd, 0, sizeof(memory), 0, -1, IBV_ACCESS_LOCAL_WRITE) && errno != 0);

	/* Objects are the parent's (rdma_provider.h, chapter 4). */
	child = fork();
	if (child == 0)
		_exit(my_ibv_dealloc_pd(pd) == EPERM && !my_ibv_open_device(context->device) && errno == EPERM &&
				      lacks(my_ibv_get_device_list(&devices), names[2]) ?
			      0 :
			      1);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

	CHECK(my_ibv_dealloc_pd(pd) == 0);
	CHECK(my_ibv_close_device(context) == 0);

	/* A program may unload it; the library stays, because it has threads. */
	CHECK(dlclose(library) == 0);
	maps = fopen("/proc/self/maps", "re");
	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		copies += strstr(line, "libibverbs.so") && strstr(line, "r-xp");
	fclose(maps);
	CHECK(copies >= 1);
	printf("loading: all of %s\n", names[2]);
	return 0;
}
