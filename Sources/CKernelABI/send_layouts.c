// kernel_sends.h against the installed kernel headers.
#include "kernel_sends.h"

#include <stddef.h>

#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#define LIES(type, field, place) _Static_assert(offsetof(type, field) == (place), #type "." #field)
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)

SIZE(struct ib_uverbs_cmd_hdr, KERNEL_SEND_HEADER_SIZE);
SIZE(struct kernel_post_send, KERNEL_SEND_REQUESTS);
LIES(struct ib_uverbs_post_send, send_wr, KERNEL_SEND_REQUESTS - KERNEL_SEND_HEADER_SIZE);
#define HEADER(field) LIES(struct ib_uverbs_cmd_hdr, field, offsetof(struct kernel_post_send, field))
#define COMMAND(field)                                                                                        \
	LIES(struct ib_uverbs_post_send, field,                                                               \
	     offsetof(struct kernel_post_send, field) - KERNEL_SEND_HEADER_SIZE)
HEADER(command);
HEADER(in_words);
HEADER(out_words);
COMMAND(response);
COMMAND(qp_handle);
COMMAND(wr_count);
COMMAND(sge_count);
COMMAND(wqe_size);

SIZE(struct ib_uverbs_send_wr, KERNEL_SEND_SIZE);
LIES(struct ib_uverbs_send_wr, wr_id, KERNEL_SEND_WR_ID);
LIES(struct ib_uverbs_send_wr, num_sge, KERNEL_SEND_SGE_COUNT);
LIES(struct ib_uverbs_send_wr, opcode, KERNEL_SEND_OPCODE);
LIES(struct ib_uverbs_send_wr, send_flags, KERNEL_SEND_FLAGS);
LIES(struct ib_uverbs_send_wr, ex, KERNEL_SEND_EX);
LIES(struct ib_uverbs_send_wr, wr, KERNEL_SEND_OPERANDS);
LIES(struct ib_uverbs_send_wr, wr.ud.ah, KERNEL_SEND_UD_AH);
LIES(struct ib_uverbs_send_wr, wr.ud.remote_qpn, KERNEL_SEND_UD_QPN);
LIES(struct ib_uverbs_send_wr, wr.ud.remote_qkey, KERNEL_SEND_UD_QKEY);

#define OPERAND(kind, field, other)                                                                           \
	_Static_assert(offsetof(struct ibv_send_wr, wr.kind.field) - offsetof(struct ibv_send_wr, wr) ==      \
			       offsetof(struct ib_uverbs_send_wr, wr.kind.other) - KERNEL_SEND_OPERANDS,      \
		       #kind "." #field)
OPERAND(rdma, remote_addr, remote_addr);
OPERAND(rdma, rkey, rkey);
OPERAND(atomic, remote_addr, remote_addr);
OPERAND(atomic, compare_add, compare_add);
OPERAND(atomic, swap, swap);
OPERAND(atomic, rkey, rkey);
SIZE(((struct ibv_send_wr *)0)->wr, 32);
SIZE(((struct ib_uverbs_send_wr *)0)->wr, 32);

SIZE(struct ib_uverbs_sge, KERNEL_SEND_SGE_SIZE);
_Static_assert(offsetof(struct ibv_sge, length) == offsetof(struct ib_uverbs_sge, length), "length");
_Static_assert(offsetof(struct ibv_sge, lkey) == offsetof(struct ib_uverbs_sge, lkey), "lkey");
SIZE(struct ibv_sge, KERNEL_SEND_SGE_SIZE);
