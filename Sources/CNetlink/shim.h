#ifndef SWIFT_RDMA_CNETLINK_H
#define SWIFT_RDMA_CNETLINK_H

#include <netlink/netlink.h>
#include <netlink/msg.h>
#include <netlink/route/link.h>

#endif
