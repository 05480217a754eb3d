// The published layouts of the kernel and the vendors. The simulator uses these and not a provider's, so that an error
// in a provider's layout is detected.
#ifndef SWIFT_RDMA_SIM_LAYOUTS_H
#define SWIFT_RDMA_SIM_LAYOUTS_H

#include "ckernelabi.h"

#include <infiniband/mlx5dv.h>
#include <rdma/cxgb4-abi.h>
#include <rdma/mlx5-abi.h>
#include <rdma/mlx5_user_ioctl_cmds.h>
#include <rdma/mlx5_user_ioctl_verbs.h>
#include <rdma/rvt-abi.h>
#include <stddef.h>

// Offsets in struct mlx5_err_cqe: Embedded Swift cannot compute offsets of fields.
enum {
	SIM_MLX5_ERROR_VENDOR = offsetof(struct mlx5_err_cqe, vendor_err_synd),
	SIM_MLX5_ERROR_SYNDROME = offsetof(struct mlx5_err_cqe, syndrome),
};

#endif
