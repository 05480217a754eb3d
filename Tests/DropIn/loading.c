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

/* Later than rdma-core 44: IBVERBS_1.15 to 1.18, as in verbs.h of rdma-core 65. */
struct ibv_buf;
struct ibv_mr_init_attr {
	size_t length;
	int access;
	uint64_t comp_mask;
	uint64_t iova;
	void *addr;
	int fd;
	uint64_t fd_offset;
	struct ibv_dmah *dmah;
	struct ibv_buf *buf;
};
enum {
	IBV_REG_MR_MASK_IOVA = 1 << 0,
	IBV_REG_MR_MASK_ADDR = 1 << 1,
	IBV_REG_MR_MASK_FD = 1 << 2,
	IBV_REG_MR_MASK_FD_OFFSET = 1 << 3,
	IBV_REG_MR_MASK_DMAH = 1 << 4,
	IBV_REG_MR_MASK_BUF = 1 << 5,
};
struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr);
int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed);
void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **buf);
void ibv_free_buf(struct ibv_buf *buf);
struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf, void *addr, size_t length, int access);
int ibv_export_buf_dmabuf_fd(struct ibv_buf *buf);

/* Buffers, as ibv_rc_pingpong of rdma-core 65 uses them, and regions by ibv_reg_mr_ex(3): of a provider that has no entries
 * for them. */
static void check_buffers(struct ibv_pd *pd, struct ibv_pd *other)
{
	FUNCTION(ibv_dereg_mr, "IBVERBS_1.1");
	FUNCTION(ibv_reg_mr_ex, "IBVERBS_1.15");
	FUNCTION(ibv_alloc_buf, "IBVERBS_1.17");
	FUNCTION(ibv_free_buf, "IBVERBS_1.17");
	FUNCTION(ibv_reg_buf_mr, "IBVERBS_1.17");
	FUNCTION(ibv_export_buf_dmabuf_fd, "IBVERBS_1.18");
	const int access = IBV_ACCESS_LOCAL_WRITE;
	struct ibv_mr_init_attr attr = { .length = 4096, .access = access };
	struct ibv_buf *buf = NULL;
	struct ibv_buf *second = NULL;
	struct ibv_mr *mr;
	char *memory = my_ibv_alloc_buf(pd, 5000, &buf);

	CHECK(memory && buf && (uintptr_t)memory % 4096 == 0);
	CHECK(my_ibv_alloc_buf(pd, 1, &second) && second != buf);
	my_ibv_free_buf(second);
	memset(memory, 1, 5000);
	CHECK(my_ibv_export_buf_dmabuf_fd(buf) == -1 && errno == ENODATA);
	mr = my_ibv_reg_buf_mr(pd, buf, memory + 1000, 4000, access);
	CHECK(mr && mr->addr == memory + 1000 && mr->length == 4000 && my_ibv_dereg_mr(mr) == 0);
	CHECK(!my_ibv_reg_buf_mr(pd, buf, memory + 1000, 4001, access) && errno == EINVAL);
	CHECK(!my_ibv_reg_buf_mr(pd, buf, memory - 1, 1, access) && errno == EINVAL);
	CHECK(!my_ibv_reg_buf_mr(other, buf, memory, 4096, access) && errno == EINVAL);

	attr.comp_mask = IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_BUF;
	attr.addr = memory;
	attr.buf = buf;
	mr = my_ibv_reg_mr_ex(pd, &attr);
	CHECK(mr && mr->addr == memory && my_ibv_dereg_mr(mr) == 0 && attr.buf == buf);
	attr.comp_mask |= IBV_REG_MR_MASK_FD;
	CHECK(!my_ibv_reg_mr_ex(pd, &attr) && errno == EINVAL);
	attr.comp_mask = IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_IOVA;
	attr.iova = 0x1000;
	mr = my_ibv_reg_mr_ex(pd, &attr);
	CHECK(mr && my_ibv_dereg_mr(mr) == 0);
	attr.comp_mask = IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_DMAH;
	CHECK(!my_ibv_reg_mr_ex(pd, &attr) && errno == EOPNOTSUPP);
	attr.comp_mask = IBV_REG_MR_MASK_IOVA;
	CHECK(!my_ibv_reg_mr_ex(pd, &attr) && errno == EINVAL);
	attr.comp_mask = IBV_REG_MR_MASK_FD | IBV_REG_MR_MASK_FD_OFFSET | IBV_REG_MR_MASK_IOVA;
	attr.fd = -1;
	errno = 0;
	CHECK(!my_ibv_reg_mr_ex(pd, &attr) && errno != 0);
	my_ibv_free_buf(buf);
}

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
	struct ibv_pd *other;
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

	other = my_ibv_alloc_pd(context);
	CHECK(other);
	check_buffers(pd, other);
	CHECK(my_ibv_dealloc_pd(other) == 0);

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
