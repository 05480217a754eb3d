// The command POST_SEND, by which work requests go to a device whose send queue is the kernel's own: where things lie in
// struct ib_uverbs_send_wr (<rdma/ib_user_verbs.h>), in bytes. send_layouts.c checks every line of it against the
// installed header.
#ifndef SWIFT_RDMA_KERNEL_SENDS_H
#define SWIFT_RDMA_KERNEL_SENDS_H

/// struct ib_uverbs_cmd_hdr and struct ib_uverbs_post_send. Behind it lie the work requests, then the SGEs of their
/// lists.
struct kernel_post_send {
	unsigned int command;
	unsigned short in_words;
	unsigned short out_words;
	unsigned long long response;
	unsigned int qp_handle;
	unsigned int wr_count;
	unsigned int sge_count;
	unsigned int wqe_size;
};

enum {
	// The header, which only write(2) takes.
	KERNEL_SEND_HEADER_SIZE = 8,
	KERNEL_SEND_REQUESTS = 32,
};

// struct ib_uverbs_send_wr
enum {
	KERNEL_SEND_WR_ID = 0,
	KERNEL_SEND_SGE_COUNT = 8,
	// A value of enum ibv_wr_opcode.
	KERNEL_SEND_OPCODE = 12,
	KERNEL_SEND_FLAGS = 16,
	// Immediate data, big endian, or the rkey to invalidate.
	KERNEL_SEND_EX = 20,
	// The union `wr`: RDMA and atomic requests have the same things in the same order as struct ibv_send_wr.
	KERNEL_SEND_OPERANDS = 24,
	KERNEL_SEND_UD_AH = 24,
	KERNEL_SEND_UD_QPN = 28,
	KERNEL_SEND_UD_QKEY = 32,
	KERNEL_SEND_SIZE = 56,
	// struct ib_uverbs_sge, which is as struct ibv_sge.
	KERNEL_SEND_SGE_SIZE = 16,
};

#endif
