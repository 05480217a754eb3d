/*
 * rdma_mlx5.h - extensions of the provider mlx5 (chapter 7 of rdma_provider.h)
 *
 * "mlx5-direct" gives a program the queues of an object, as mlx5dv_init_obj(3) of libmlx5 does: it writes WQEs, rings
 * doorbells and reads CQEs itself. Formats are those of <infiniband/mlx5dv.h>. From C:
 *
 *     const struct rdma_mlx5_direct *direct =
 *         ops->query_extension(context, RDMA_MLX5_DIRECT, RDMA_MLX5_DIRECT_VERSION);
 *
 * From Swift: Context.providerExtension("mlx5-direct", version: 1).
 */
#ifndef RDMA_MLX5_H
#define RDMA_MLX5_H

#include <linux/types.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ibv_cq;
struct ibv_qp;

#define RDMA_MLX5_DIRECT "mlx5-direct"
#define RDMA_MLX5_DIRECT_VERSION 1

/* The caller of get_qp and get_cq sets `size` to the size of its struct. The function fills the members that
 * fit, and sets `size` to the bytes that it filled. All memory is valid until the object is destroyed, except that
 * resize_cq moves the buffer of a CQ. */

/* A ring of WQEs: `wqe_cnt` of `stride` bytes each. wqe_cnt is a power of two, or 0 where there is no ring. */
struct rdma_mlx5_ring {
	void *buf;
	uint32_t wqe_cnt;
	uint32_t stride;
};

enum rdma_mlx5_qp_flags {
	/* Other queue pairs of the context ring the same doorbell register. A queue pair of a thread domain has one of its
	 * own. */
	RDMA_MLX5_QP_SHARED_BF = 1 << 0,
};

/* As struct mlx5dv_qp. */
struct rdma_mlx5_qp {
	uint32_t size;
	uint32_t flags; /* enum rdma_mlx5_qp_flags */
	__be32 *dbrec;  /* [0]: receive counter, [1]: send counter (MLX5_RCV_DBR, MLX5_SND_DBR) */
	struct rdma_mlx5_ring sq;
	struct rdma_mlx5_ring rq; /* empty with a shared receive queue */
	struct {
		void *reg; /* the first of two buffers of `size` bytes, which are used alternately */
		uint32_t size; /* 0: only 8-byte doorbells, always to `reg` */
		uint32_t reserved;
	} bf;
	uint32_t qpn;
	uint32_t reserved;
};

/* As struct mlx5dv_cq. */
struct rdma_mlx5_cq {
	uint32_t size;
	uint32_t cqn;
	void *buf;
	__be32 *dbrec; /* [0]: consumer index, [1]: arm word (MLX5_CQ_SET_CI, MLX5_CQ_ARM_DB) */
	uint32_t cqe_cnt;
	uint32_t cqe_size; /* 64 or 128; the CQE is in its last 64 bytes */
	void *cq_uar; /* the page with the CQ doorbell, at 0x20 */
};

/*
 * The functions return 0, or EINVAL if `size` lacks a member of version 1. The object belongs to the context that was asked
 * for the extension. Call them before anything is posted to, or polled from the object; from then on the program does that
 * itself, and calls no function of verbs.h on it except those that modify, query and destroy. A QP and its CQs are used
 * directly together: the provider finds no work request for a CQE of a WQE that it did not write. modify_qp to RESET
 * resets the doorbell records, and removes the CQEs of the QP from a CQ that the provider polls.
 */
struct rdma_mlx5_direct {
	uint32_t size;
	uint32_t reserved;
	int (*get_qp)(struct ibv_qp *qp, struct rdma_mlx5_qp *out);
	int (*get_cq)(struct ibv_cq *cq, struct rdma_mlx5_cq *out);
};

#ifdef __cplusplus
}
#endif

#endif
