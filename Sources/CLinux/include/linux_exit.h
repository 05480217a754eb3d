// Functions that are called when the process ends.
#ifndef SWIFT_RDMA_LINUX_EXIT_H
#define SWIFT_RDMA_LINUX_EXIT_H

#include <stdbool.h>

/// Calls `function` with `object` when the process ends by exit(3) or a return from main, after the handlers of atexit(3),
/// and when the library is unloaded; not in a child of fork(2). Other threads may still run then. Returns false when 256
/// objects are registered already.
bool linux_call_at_exit(void (*function)(void *object), void *object);

/// Ends linux_call_at_exit for this object.
void linux_forget_at_exit(const void *object);

#endif
