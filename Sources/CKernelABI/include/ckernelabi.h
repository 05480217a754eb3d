// The kernel's RDMA command ABI, from the installed kernel headers: requests and answers of uverbs, and the private data
// of the drivers that have a provider here.
#ifndef SWIFT_RDMA_CKERNELABI_H
#define SWIFT_RDMA_CKERNELABI_H

// Before the kernel's own headers of the same types, which then stand back.
#include <netinet/in.h>

// Has <rdma/ib_user_ioctl_verbs.h> of its own, to which both keep.
#include <infiniband/verbs.h>

#include <rdma/cxgb4-abi.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/mlx5-abi.h>
#include <rdma/mlx5_user_ioctl_cmds.h>
#include <rdma/mlx5_user_ioctl_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <rdma/rdma_user_rxe.h>
#include <rdma/rvt-abi.h>

#endif
