/*
 * A device that the distribution's library serves is that library's own, also in a program that has this library in front of
 * it: the same struct ibv_device, a context with the same functions, and objects whose functions are the provider's. So posting
 * and polling cost what they cost without this library. Prints what it has proved, or what is not so; the exit status says which.
 *
 *   untouched DEVICE
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <link.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

static struct ibv_device *find(struct ibv_device **list, const char *name)
{
	for (; *list; list++)
		if (!strcmp((*list)->name, name))
			return *list;
	return NULL;
}

/* The path of the file that has the function. */
static const char *file_of(void *function)
{
	Dl_info info;

	CHECK(function && dladdr(function, &info) && info.dli_fname);
	return info.dli_fname;
}

/* The function is in none of the files of this package. */
static void check_file(void *function)
{
	CHECK(strcmp(file_of(function), file_of((void *)ibv_get_device_list)) != 0);
	CHECK(!strstr(file_of(function), "libverbs-sysfs.so"));
}

/* Both contexts are that library's: all functions that verbs.h's inline functions call are the same. */
static void compare_functions(struct ibv_context *ours, struct ibv_context *theirs)
{
	const char *first = (const char *)verbs_get_ctx(ours);
	const char *second = (const char *)verbs_get_ctx(theirs);
	/* libibverbs's own state, of each context. */
	const size_t start = offsetof(struct verbs_context, priv);
	const size_t end = start + sizeof(struct verbs_ex_private *);

	CHECK(!memcmp(&ours->ops, &theirs->ops, sizeof(ours->ops)));
	CHECK(first && second && first != second && ours->abi_compat == theirs->abi_compat);
	CHECK(verbs_get_ctx(ours)->sz == verbs_get_ctx(theirs)->sz);
	CHECK(!memcmp(first, second, start));
	CHECK(!memcmp(first + end, second + end, offsetof(struct verbs_context, sz) - end));
}

/* The functions of objects: those of the extended interfaces are in the objects themselves. */
static void check_objects(struct ibv_context *context)
{
	struct ibv_cq_init_attr_ex cq_attr = {.cqe = 16};
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq_ex *cq = ibv_create_cq_ex(context, &cq_attr);
	struct ibv_cq *plain = ibv_create_cq(context, 16, NULL, NULL, 0);
	struct ibv_qp_init_attr_ex attr = {
		.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	};
	struct ibv_qp_ex *extended;
	struct ibv_qp *qp;

	CHECK(pd && pd->context == context && plain && plain->context == context);
	attr.send_cq = plain;
	attr.recv_cq = plain;
	qp = ibv_create_qp_ex(context, &attr);
	CHECK(qp && qp->context == context);
	extended = ibv_qp_to_qp_ex(qp);
	CHECK(extended);
	check_file((void *)context->ops.post_send);
	check_file((void *)context->ops.post_recv);
	check_file((void *)context->ops.poll_cq);
	/* Not req_notify_cq, a system call: providers take libibverbs's own, by way of a name that both libraries export. */
	check_file((void *)extended->wr_start);
	check_file((void *)extended->wr_send);
	check_file((void *)extended->wr_set_sge);
	check_file((void *)extended->wr_complete);
	/* Not every provider has it. */
	if (cq) {
		check_file((void *)cq->start_poll);
		check_file((void *)cq->next_poll);
		CHECK(!ibv_destroy_cq(ibv_cq_ex_to_cq(cq)));
	}
	CHECK(!ibv_destroy_qp(qp) && !ibv_destroy_cq(plain) && !ibv_dealloc_pd(pd));
}

/* Finds the other libibverbs.so.1 that is loaded. */
static int is_other(struct dl_phdr_info *info, size_t size, void *found)
{
	static const char name[] = "/libibverbs.so.1";
	const size_t length = strlen(info->dlpi_name);

	(void)size;
	if (length < strlen(name) || strcmp(info->dlpi_name + length - strlen(name), name) != 0 ||
	    !strcmp(info->dlpi_name, file_of((void *)ibv_get_device_list)))
		return 0;
	*(const char **)found = info->dlpi_name;
	return 1;
}

int main(int count, char **arguments)
{
	struct ibv_device **(*get_list)(int *), **list, **their_list;
	struct ibv_context *(*open_device)(struct ibv_device *), *context, *theirs;
	int (*close_device)(struct ibv_context *);
	struct ibv_device *device;
	const char *path = NULL;
	void *other;

	CHECK(count == 2);
	list = ibv_get_device_list(NULL);
	CHECK(list && dl_iterate_phdr(is_other, &path));
	other = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	CHECK(other);
	get_list = (__typeof__(get_list))dlsym(other, "ibv_get_device_list");
	open_device = (__typeof__(open_device))dlsym(other, "ibv_open_device");
	close_device = (__typeof__(close_device))dlsym(other, "ibv_close_device");
	CHECK(get_list && open_device && close_device && get_list != ibv_get_device_list);
	their_list = get_list(NULL);
	CHECK(their_list);
	device = find(list, arguments[1]);
	CHECK(device && device == find(their_list, arguments[1]));
	context = ibv_open_device(device);
	theirs = open_device(device);
	CHECK(context && theirs && context->device == device && theirs->device == device);
	compare_functions(context, theirs);
	check_objects(context);
	/* It is a context of that library, which closes it itself. */
	CHECK(!close_device(context) && !close_device(theirs));
	ibv_free_device_list(list);
	printf("untouched: all of %s is that of %s\n", arguments[1], file_of((void *)open_device));
	return 0;
}
