// Offsets in the queues that rdma_rxe shares with userspace (<rdma/rdma_user_rxe.h>), in bytes. rxe_layouts.c
// checks every line of it against the installed header.
//
// Offsets in place of the structs: entries end in flexible arrays and hold unions, which Swift does not import or reads
// and writes as a whole.
#ifndef SWIFT_RDMA_KERNEL_RXE_H
#define SWIFT_RDMA_KERNEL_RXE_H

// struct rxe_queue_buf: the head of a queue. All words are of 32 bits.
enum {
	RXE_QUEUE_LOG2_ELEMENT_SIZE = 0,
	RXE_QUEUE_INDEX_MASK = 4,
	RXE_QUEUE_PRODUCER = 128,
	RXE_QUEUE_CONSUMER = 256,
	RXE_QUEUE_DATA = 384,
};

// struct rxe_send_wqe
enum {
	RXE_SEND_WR_ID = 0,
	// 32 bits each; the opcode as in enum ibv_wr_opcode.
	RXE_SEND_OPCODE = 12,
	RXE_SEND_FLAGS = 16,
	// Immediate data, big endian, or the rkey to invalidate.
	RXE_SEND_EX = 20,
	// The union `wr`: what the operation names beyond its data.
	RXE_SEND_RDMA_ADDRESS = 24,
	RXE_SEND_RDMA_RKEY = 32,
	RXE_SEND_ATOMIC_ADDRESS = 24,
	RXE_SEND_ATOMIC_COMPARE_ADD = 32,
	RXE_SEND_ATOMIC_SWAP = 40,
	RXE_SEND_ATOMIC_RKEY = 48,
	RXE_SEND_UD_QPN = 24,
	RXE_SEND_UD_QKEY = 28,
	// 16 bits, and 16 that are reserved.
	RXE_SEND_UD_PKEY_INDEX = 32,
	RXE_SEND_UD_AH_NUMBER = 36,
	RXE_SEND_MW_ADDRESS = 24,
	RXE_SEND_MW_LENGTH = 32,
	RXE_SEND_MW_MR_LKEY = 40,
	RXE_SEND_MW_MW_RKEY = 44,
	RXE_SEND_MW_RKEY = 48,
	RXE_SEND_MW_ACCESS = 52,
	// FLUSH, from Linux 6.3 on. The kernel reads the range from iova and dma.length. Placement and selectivity are bytes.
	RXE_SEND_FLUSH_ADDRESS = 24,
	RXE_SEND_FLUSH_LENGTH = 32,
	RXE_SEND_FLUSH_RKEY = 36,
	RXE_SEND_FLUSH_PLACEMENT = 40,
	RXE_SEND_FLUSH_SELECTIVITY = 41,
	// State that the kernel keeps in the entry; the provider sets it to 0.
	RXE_SEND_STATUS = 144,
	RXE_SEND_STATE = 148,
	RXE_SEND_IOVA = 152,
	RXE_SEND_SSN = 176,
	RXE_SEND_HAS_RD_ATOMIC = 180,
	// struct rxe_dma_info
	RXE_SEND_DMA = 184,
	RXE_SEND_DATA = 208,
};

// struct rxe_recv_wqe
enum {
	RXE_RECEIVE_WR_ID = 0,
	RXE_RECEIVE_DMA = 16,
	RXE_RECEIVE_DATA = 40,
};

// struct rxe_dma_info: how far the kernel is with the data of an entry.
enum {
	RXE_DMA_LENGTH = 0,
	RXE_DMA_RESID = 4,
	RXE_DMA_CURRENT_SGE = 8,
	RXE_DMA_SGE_COUNT = 12,
	RXE_DMA_SGE_OFFSET = 16,
};

// struct rxe_sge, which is as struct ibv_sge; struct ib_uverbs_wc, which is as struct ibv_wc.
enum {
	RXE_SGE_SIZE = 16,
	RXE_COMPLETION_SIZE = 48,
};

// The doorbell of a send queue: struct ib_uverbs_cmd_hdr and struct ib_uverbs_post_send for no request at all.
/// An empty POST_SEND, as it is written to the uverbs descriptor.
struct rxe_doorbell {
	unsigned int command;
	unsigned short in_words;
	unsigned short out_words;
	unsigned long long response;
	unsigned int qp_handle;
	unsigned int wr_count;
	unsigned int sge_count;
	unsigned int wqe_size;
};

// Its content, for every doorbell.
enum {
	RXE_DOORBELL_COMMAND = 28,
	RXE_DOORBELL_IN_WORDS = 8,
	RXE_DOORBELL_OUT_WORDS = 1,
	// The value of libibverbs, sizeof(struct ibv_send_wr): the kernel asks for at least its own struct's size, 56.
	RXE_DOORBELL_WQE_SIZE = 128,
};

#endif
