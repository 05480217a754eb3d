// epoll(7) for descriptors that are waited for once.
#ifndef SWIFT_RDMA_LINUX_EPOLL_H
#define SWIFT_RDMA_LINUX_EPOLL_H

/// A new epoll descriptor, or -1 with errno.
int linux_epoll_create(void);

/// Reports once that the descriptor is readable or has failed. 0, or -1 with errno.
int linux_epoll_add(int epoll, int descriptor);

/// Forgets a descriptor.
void linux_epoll_remove(int epoll, int descriptor);

/// Waits for one report: its descriptor, or -1 after a signal.
int linux_epoll_wait_one(int epoll);

#endif
