// Shared libraries that are loaded in the process.
#ifndef SWIFT_RDMA_LINUX_LIBRARIES_H
#define SWIFT_RDMA_LINUX_LIBRARIES_H

/// Whether `symbol` is defined in the library of `handle` itself, not in one that it depends on.
int linux_symbol_is_own(void *handle, void *symbol);

/// Calls `visit` with the path of every library that is mapped in this process.
void linux_visit_libraries(void (*visit)(const char *path, void *context), void *context);

/// The first bytes of this program's own ELF header (elf(5)): identification, type and machine.
const void *linux_elf_header(void);

#endif
