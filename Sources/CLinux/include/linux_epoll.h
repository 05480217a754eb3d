// epoll(7) with one report for each registration (EPOLLONESHOT).
#ifndef SWIFT_RDMA_LINUX_EPOLL_H
#define SWIFT_RDMA_LINUX_EPOLL_H

/// Creates an epoll descriptor. Returns it, or -1 with errno.
int linux_epoll_create(void);

/// Registers a descriptor for one report that it is readable or has failed. Returns 0, or -1 with errno.
int linux_epoll_add(int epoll, int descriptor);

/// Removes a descriptor.
void linux_epoll_remove(int epoll, int descriptor);

/// Waits for one report. Returns its descriptor, or -1 after a signal.
int linux_epoll_wait_one(int epoll);

#endif
