#include "linux_epoll.h"

#include <stddef.h>
#include <sys/epoll.h>

int linux_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

int linux_epoll_add(int epoll, int descriptor) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.fd = descriptor};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

void linux_epoll_remove(int epoll, int descriptor) { epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, NULL); }

int linux_epoll_wait_one(int epoll) {
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, -1) == 1 ? event.data.fd : -1;
}
