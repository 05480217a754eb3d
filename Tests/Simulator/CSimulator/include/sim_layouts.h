// The layouts that the kernel and the devices' makers publish. The simulator takes them from here and not from a
// provider, so that both must be right to agree.
#ifndef SWIFT_RDMA_SIM_LAYOUTS_H
#define SWIFT_RDMA_SIM_LAYOUTS_H

#include "ckernelabi.h"

#include <infiniband/mlx5dv.h>
#include <rdma/mlx5-abi.h>
#include <rdma/mlx5_user_ioctl_cmds.h>
#include <rdma/mlx5_user_ioctl_verbs.h>
#include <rdma/rvt-abi.h>
#include <stddef.h>

// Where struct mlx5_err_cqe differs from struct mlx5_cqe64: Embedded Swift has no offsets of fields.
enum {
	SIM_MLX5_ERROR_VENDOR = offsetof(struct mlx5_err_cqe, vendor_err_synd),
	SIM_MLX5_ERROR_SYNDROME = offsetof(struct mlx5_err_cqe, syndrome),
};

#endif
