// Offsets in the queues that rdmavt, the software half of hfi1, shares with userspace (<rdma/rvt-abi.h>), in
// bytes. rvt_layouts.c checks every line of it against the installed header.
//
// Offsets in place of the structs: their entries are flexible arrays, which Swift does not import.
#ifndef SWIFT_RDMA_KERNEL_RVT_H
#define SWIFT_RDMA_KERNEL_RVT_H

// struct rvt_cq_wc and struct rvt_rwq alike: two indices of 32 bits, and the entries.
enum {
	RVT_QUEUE_HEAD = 0,
	RVT_QUEUE_TAIL = 4,
	RVT_QUEUE_ENTRIES = 8,
};

// struct rvt_rwqe
enum {
	RVT_RECEIVE_WR_ID = 0,
	// 8 bits, and 56 that are reserved.
	RVT_RECEIVE_SGE_COUNT = 8,
	RVT_RECEIVE_SGES = 16,
};

// struct rvt_wqe_sge, which is as struct ibv_sge; struct ib_uverbs_wc, which is as struct ibv_wc.
enum {
	RVT_SGE_SIZE = 16,
	RVT_COMPLETION_SIZE = 48,
};

#endif
