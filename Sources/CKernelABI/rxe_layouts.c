// kernel_rxe.h against the installed kernel headers.
#include "kernel_rxe.h"

#include <stddef.h>

#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_rxe.h>

#define LIES(type, field, place) _Static_assert(offsetof(type, field) == (place), #type "." #field)
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)

LIES(struct rxe_queue_buf, log2_elem_size, RXE_QUEUE_LOG2_ELEMENT_SIZE);
LIES(struct rxe_queue_buf, index_mask, RXE_QUEUE_INDEX_MASK);
LIES(struct rxe_queue_buf, producer_index, RXE_QUEUE_PRODUCER);
LIES(struct rxe_queue_buf, consumer_index, RXE_QUEUE_CONSUMER);
LIES(struct rxe_queue_buf, data, RXE_QUEUE_DATA);

LIES(struct rxe_send_wqe, wr.wr_id, RXE_SEND_WR_ID);
LIES(struct rxe_send_wqe, wr.opcode, RXE_SEND_OPCODE);
LIES(struct rxe_send_wqe, wr.send_flags, RXE_SEND_FLAGS);
LIES(struct rxe_send_wqe, wr.ex.imm_data, RXE_SEND_EX);
LIES(struct rxe_send_wqe, wr.ex.invalidate_rkey, RXE_SEND_EX);
LIES(struct rxe_send_wqe, wr.wr.rdma.remote_addr, RXE_SEND_RDMA_ADDRESS);
LIES(struct rxe_send_wqe, wr.wr.rdma.rkey, RXE_SEND_RDMA_RKEY);
LIES(struct rxe_send_wqe, wr.wr.atomic.remote_addr, RXE_SEND_ATOMIC_ADDRESS);
LIES(struct rxe_send_wqe, wr.wr.atomic.compare_add, RXE_SEND_ATOMIC_COMPARE_ADD);
LIES(struct rxe_send_wqe, wr.wr.atomic.swap, RXE_SEND_ATOMIC_SWAP);
LIES(struct rxe_send_wqe, wr.wr.atomic.rkey, RXE_SEND_ATOMIC_RKEY);
LIES(struct rxe_send_wqe, wr.wr.ud.remote_qpn, RXE_SEND_UD_QPN);
LIES(struct rxe_send_wqe, wr.wr.ud.remote_qkey, RXE_SEND_UD_QKEY);
LIES(struct rxe_send_wqe, wr.wr.ud.pkey_index, RXE_SEND_UD_PKEY_INDEX);
LIES(struct rxe_send_wqe, wr.wr.ud.ah_num, RXE_SEND_UD_AH_NUMBER);
LIES(struct rxe_send_wqe, wr.wr.mw.addr, RXE_SEND_MW_ADDRESS);
LIES(struct rxe_send_wqe, wr.wr.mw.length, RXE_SEND_MW_LENGTH);
LIES(struct rxe_send_wqe, wr.wr.mw.mr_lkey, RXE_SEND_MW_MR_LKEY);
LIES(struct rxe_send_wqe, wr.wr.mw.mw_rkey, RXE_SEND_MW_MW_RKEY);
LIES(struct rxe_send_wqe, wr.wr.mw.rkey, RXE_SEND_MW_RKEY);
LIES(struct rxe_send_wqe, wr.wr.mw.access, RXE_SEND_MW_ACCESS);
LIES(struct rxe_send_wqe, status, RXE_SEND_STATUS);
LIES(struct rxe_send_wqe, state, RXE_SEND_STATE);
LIES(struct rxe_send_wqe, iova, RXE_SEND_IOVA);
LIES(struct rxe_send_wqe, ssn, RXE_SEND_SSN);
LIES(struct rxe_send_wqe, has_rd_atomic, RXE_SEND_HAS_RD_ATOMIC);
LIES(struct rxe_send_wqe, dma, RXE_SEND_DMA);
LIES(struct rxe_send_wqe, dma.sge, RXE_SEND_DATA);
LIES(struct rxe_send_wqe, dma.inline_data, RXE_SEND_DATA);

LIES(struct rxe_recv_wqe, wr_id, RXE_RECEIVE_WR_ID);
LIES(struct rxe_recv_wqe, dma, RXE_RECEIVE_DMA);
LIES(struct rxe_recv_wqe, dma.sge, RXE_RECEIVE_DATA);

LIES(struct rxe_dma_info, length, RXE_DMA_LENGTH);
LIES(struct rxe_dma_info, resid, RXE_DMA_RESID);
LIES(struct rxe_dma_info, cur_sge, RXE_DMA_CURRENT_SGE);
LIES(struct rxe_dma_info, num_sge, RXE_DMA_SGE_COUNT);
LIES(struct rxe_dma_info, sge_offset, RXE_DMA_SGE_OFFSET);

// Structs that are copied unchanged: SGEs, completions, and the operands of RDMA and atomic requests.
#define ALIKE(ours, field, theirs, other) _Static_assert(offsetof(ours, field) == offsetof(theirs, other), #field)
SIZE(struct rxe_sge, RXE_SGE_SIZE);
SIZE(struct ibv_sge, RXE_SGE_SIZE);
ALIKE(struct ibv_sge, addr, struct rxe_sge, addr);
ALIKE(struct ibv_sge, length, struct rxe_sge, length);
ALIKE(struct ibv_sge, lkey, struct rxe_sge, lkey);

SIZE(struct ib_uverbs_wc, RXE_COMPLETION_SIZE);
SIZE(struct ibv_wc, RXE_COMPLETION_SIZE);
ALIKE(struct ibv_wc, wr_id, struct ib_uverbs_wc, wr_id);
ALIKE(struct ibv_wc, status, struct ib_uverbs_wc, status);
ALIKE(struct ibv_wc, opcode, struct ib_uverbs_wc, opcode);
ALIKE(struct ibv_wc, vendor_err, struct ib_uverbs_wc, vendor_err);
ALIKE(struct ibv_wc, byte_len, struct ib_uverbs_wc, byte_len);
ALIKE(struct ibv_wc, imm_data, struct ib_uverbs_wc, ex.imm_data);
ALIKE(struct ibv_wc, qp_num, struct ib_uverbs_wc, qp_num);
ALIKE(struct ibv_wc, src_qp, struct ib_uverbs_wc, src_qp);
ALIKE(struct ibv_wc, wc_flags, struct ib_uverbs_wc, wc_flags);
ALIKE(struct ibv_wc, pkey_index, struct ib_uverbs_wc, pkey_index);
ALIKE(struct ibv_wc, slid, struct ib_uverbs_wc, slid);
ALIKE(struct ibv_wc, sl, struct ib_uverbs_wc, sl);
ALIKE(struct ibv_wc, dlid_path_bits, struct ib_uverbs_wc, dlid_path_bits);

#define OPERAND(kind, field, place)                                                                           \
	_Static_assert(offsetof(struct ibv_send_wr, wr.kind.field) - offsetof(struct ibv_send_wr, wr) ==      \
			       (place)-RXE_SEND_RDMA_ADDRESS,                                                 \
		       #kind "." #field)
OPERAND(rdma, remote_addr, RXE_SEND_RDMA_ADDRESS);
OPERAND(rdma, rkey, RXE_SEND_RDMA_RKEY);
OPERAND(atomic, remote_addr, RXE_SEND_ATOMIC_ADDRESS);
OPERAND(atomic, compare_add, RXE_SEND_ATOMIC_COMPARE_ADD);
OPERAND(atomic, swap, RXE_SEND_ATOMIC_SWAP);
OPERAND(atomic, rkey, RXE_SEND_ATOMIC_RKEY);
SIZE(((struct ibv_send_wr *)0)->wr, 32);

SIZE(struct rxe_doorbell, sizeof(struct ib_uverbs_cmd_hdr) + sizeof(struct ib_uverbs_post_send));
SIZE(struct rxe_doorbell, 4 * RXE_DOORBELL_IN_WORDS);
SIZE(struct ib_uverbs_post_send_resp, 4 * RXE_DOORBELL_OUT_WORDS);
SIZE(struct ibv_send_wr, RXE_DOORBELL_WQE_SIZE);
_Static_assert((int)RXE_DOORBELL_COMMAND == (int)IB_USER_VERBS_CMD_POST_SEND, "POST_SEND");
#define RUNG(field)                                                                                           \
	_Static_assert(offsetof(struct rxe_doorbell, field) ==                                                \
			       sizeof(struct ib_uverbs_cmd_hdr) + offsetof(struct ib_uverbs_post_send, field), \
		       #field)
LIES(struct ib_uverbs_cmd_hdr, command, offsetof(struct rxe_doorbell, command));
LIES(struct ib_uverbs_cmd_hdr, in_words, offsetof(struct rxe_doorbell, in_words));
LIES(struct ib_uverbs_cmd_hdr, out_words, offsetof(struct rxe_doorbell, out_words));
RUNG(response);
RUNG(qp_handle);
RUNG(wr_count);
RUNG(sge_count);
RUNG(wqe_size);
