#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux_libraries.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>

int linux_symbol_is_own(void *handle, void *symbol)
{
	struct link_map *library = NULL, *owner = NULL;
	Dl_info info;

	if (dlinfo(handle, RTLD_DI_LINKMAP, &library))
		return 0;
	if (!dladdr1(symbol, &info, (void **)&owner, RTLD_DL_LINKMAP))
		return 0;
	return library == owner;
}

struct visitor {
	void (*visit)(const char *path, void *context);
	void *context;
};

static int visit_one(struct dl_phdr_info *info, size_t size, void *context)
{
	const struct visitor *visitor = context;

	(void)size;
	if (info->dlpi_name)
		visitor->visit(info->dlpi_name, visitor->context);
	return 0;
}

void linux_visit_libraries(void (*visit)(const char *path, void *context), void *context)
{
	struct visitor visitor = { visit, context };

	dl_iterate_phdr(visit_one, &visitor);
}

/* Every linker defines this symbol at the start of the file that it links. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

const void *linux_elf_header(void)
{
	return &__ehdr_start;
}
