#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* By this symbol the library tells another copy of itself, in another directory, from the distribution's. */
DROPIN_EXPORT const char swift_rdma_libibverbs[] = RDMA_CORE_VERSION;

/* A variable that libibverbs has set from RDMAV_ALLOW_DISASSOC_DESTROY, and that inline functions of rdma-core's private
 * headers read. */
DROPIN_EXPORT bool verbs_allow_disassociate_destroy;
DROPIN_EXPORT_PRIVATE(verbs_allow_disassociate_destroy, "@object");

struct dropin_behind behind;
static char behind_path[4096];
static int behind_node;
static atomic_int refused_node;

const char *dropin_behind_path(void)
{
	return *behind_path ? behind_path : NULL;
}

int dropin_behind_node(void)
{
	return behind_node;
}

int dropin_take_refused_node(void)
{
	return atomic_exchange(&refused_node, 0);
}

/* ---- functions that the distribution's library serves alone ---- */

__attribute__((noreturn)) static void absent(void)
{
	static const char text[] = "libibverbs.so.1 of swift-rdma: a function was called that only the distribution's "
				   "libibverbs has, which is not installed, or is a version without it, or with "
				   "another private node\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(127);
	abort();
}

/* Constructors of libmlx5 and libefa call verbs_register_driver_N. Without the distribution's library, or if that has another
 * private node, the driver is left out. No message can be logged before the program's own constructors: the next list of
 * devices does it. */
#define REFUSE_DRIVER(number, ...)                                                                         \
	static void refuse_driver_##number(const void *driver)                                             \
	{                                                                                                  \
		(void)driver;                                                                              \
		atomic_store(&refused_node, number);                                                       \
	}
PRIVATE_NODES(REFUSE_DRIVER)
#undef REFUSE_DRIVER

/* The addresses to which the symbols lead. A private function has one for each node: structs differ between them, so what is
 * linked with one node must not reach the library of another. */
#define FORWARD(name, version) __attribute__((visibility("hidden"))) void *dropin_to_##name = (void *)absent;
#define TARGET(number, name) FORWARD(number##_##name, )
#define FORWARD_PRIVATE(name) PRIVATE_NODES(TARGET, name)
#define FORWARD_DRIVER(number)                                                                             \
	__attribute__((visibility("hidden"))) void *dropin_to_verbs_register_driver_##number =             \
		(void *)refuse_driver_##number;
#define FORWARD_OLD(name, version) __attribute__((visibility("hidden"))) void *dropin_to_old_##name = (void *)absent;
#include "forwarded.h"
#undef FORWARD
#undef TARGET
#undef FORWARD_PRIVATE
#undef FORWARD_DRIVER
#undef FORWARD_OLD

/* A jump, because the functions have any number of arguments. The registers that it uses are the linker's (x86-64: none;
 * aarch64: x16, AAPCS64 6.1.1). */
#if defined(__x86_64__)
#define JUMP(target) "\tendbr64\n\tjmpq *" target "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(target) "\tbti c\n\tadrp x16, " target "\n\tldr x16, [x16, :lo12:" target "]\n\tbr x16\n"
#else
#error "a jump through a variable is needed for this architecture"
#endif
#define SYMBOL(symbol, target)                                                                             \
	"\t.text\n\t.p2align 4\n\t.globl " symbol "\n\t.type " symbol ", @function\n" symbol ":\n" JUMP(target)  \
	"\t.size " symbol ", . - " symbol "\n"
#define FORWARD(name, version) __asm__(SYMBOL(#name, "dropin_to_" #name));
/* The linker exports the name itself in IBVERBS_PRIVATE_34 (libibverbs.map). */
#define LATER(number, name)                                                                                \
	SYMBOL("dropin_" #number "_" #name, "dropin_to_" #number "_" #name)                                \
	"\t.symver dropin_" #number "_" #name ", " #name "@IBVERBS_PRIVATE_" #number "\n"
#define FORWARD_PRIVATE(name) __asm__(SYMBOL(#name, "dropin_to_34_" #name) LATER_PRIVATE_NODES(LATER, name));
#define FORWARD_DRIVER(number) FORWARD(verbs_register_driver_##number, )
#define FORWARD_OLD(name, version)                                                                         \
	__asm__(SYMBOL("dropin_old_" #name, "dropin_to_old_" #name) "\t.symver dropin_old_" #name ", " #name   \
		"@" version "\n");
#include "forwarded.h"
#undef FORWARD
#undef LATER
#undef FORWARD_PRIVATE
#undef FORWARD_DRIVER
#undef FORWARD_OLD

/* ---- finding it ---- */

/* Opens the library of that path, unless it is a copy of this one. */
static void *open_other(const char *path)
{
	void *handle;

	/* Local, so that its functions do not stand in the way of those here; never unloaded, as its providers are not. */
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (handle && dlsym(handle, "swift_rdma_libibverbs")) {
		dlclose(handle);
		handle = NULL;
	}
	return handle;
}

/* Opens libibverbs.so.1 in the directories in which the dynamic linker looks, LD_LIBRARY_PATH first. A search by name alone
 * would find this library, which has that name. */
static void *open_distribution(void)
{
	void *handle = NULL;
	void *self;
	Dl_info info;
	Dl_serinfo size;
	Dl_serinfo *search;
	unsigned int index;

	if (!dladdr((void *)swift_rdma_libibverbs, &info) || !(self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD)))
		return NULL;
	if (dlinfo(self, RTLD_DI_SERINFOSIZE, &size) == 0 && (search = malloc(size.dls_size)) != NULL) {
		*search = size;
		if (dlinfo(self, RTLD_DI_SERINFO, search) == 0) {
			for (index = 0; index < search->dls_cnt && !handle; index++) {
				int length = snprintf(behind_path, sizeof(behind_path), "%s/libibverbs.so.1",
						      search->dls_serpath[index].dls_name);

				if (length > 0 && (size_t)length < sizeof(behind_path) && !access(behind_path, R_OK))
					handle = open_other(behind_path);
			}
		}
		free(search);
	}
	if (!handle)
		*behind_path = '\0';
	dlclose(self);
	return handle;
}

/* The number of the private node that this version of rdma-core has; 0 if it is none of those here. */
static int find_node(void *handle)
{
#define NODE(number, ...)                                                                                  \
	if (dlvsym(handle, "verbs_register_driver_" #number, "IBVERBS_PRIVATE_" #number))                  \
		return number;
	PRIVATE_NODES(NODE)
#undef NODE
	return 0;
}

/* A function of that node. */
static void *find_private(void *handle, const char *name)
{
	char node[32];

	if (!behind_node)
		return NULL;
	snprintf(node, sizeof(node), "IBVERBS_PRIVATE_%d", behind_node);
	return dlvsym(handle, name, node);
}

/* Before the constructors of libraries that link this one, which may call it. */
__attribute__((constructor(101))) static void find_functions(void)
{
	void *handle = open_distribution();
	void *symbol;

	if (!handle)
		return;
	behind_node = find_node(handle);
#define KEEP(name, found)                                                                                  \
	symbol = found;                                                                                    \
	memcpy(&behind.name, &symbol, sizeof(symbol));
#define PUBLIC(name, version) KEEP(name, dlvsym(handle, #name, version))
#define PUBLIC_PRIVATE(name) KEEP(name, find_private(handle, #name))
#include "public_names.h"
#undef PUBLIC
#undef PUBLIC_PRIVATE
#undef KEEP
#define FORWARD(name, version)                                                                             \
	if ((symbol = dlvsym(handle, #name, version)) != NULL)                                             \
		dropin_to_##name = symbol;
#define TARGET(number, name)                                                                               \
	if (behind_node == number)                                                                         \
		dropin_to_##number##_##name = symbol;
#define FORWARD_PRIVATE(name)                                                                              \
	if ((symbol = find_private(handle, #name)) != NULL) {                                              \
		PRIVATE_NODES(TARGET, name)                                                                \
	}
#define FORWARD_DRIVER(number) FORWARD(verbs_register_driver_##number, "IBVERBS_PRIVATE_" #number)
#define FORWARD_OLD(name, version)                                                                         \
	if ((symbol = dlvsym(handle, #name, version)) != NULL)                                             \
		dropin_to_old_##name = symbol;
#include "forwarded.h"
#undef FORWARD
#undef TARGET
#undef FORWARD_PRIVATE
#undef FORWARD_DRIVER
#undef FORWARD_OLD
}
