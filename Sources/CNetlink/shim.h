#ifndef SWIFT_RDMA_CNETLINK_H
#define SWIFT_RDMA_CNETLINK_H

#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <rdma/rdma_netlink.h>

#endif
