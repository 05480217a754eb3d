// kernel_rvt.h against the installed kernel headers. That completions lie as those of verbs.h is checked by
// rxe_layouts.c.
#include "kernel_rvt.h"

#include <stddef.h>

#include <infiniband/verbs.h>
#include <rdma/rvt-abi.h>

#define LIES(type, field, place) _Static_assert(offsetof(type, field) == (place), #type "." #field)
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#define ALIKE(ours, field, theirs, other) _Static_assert(offsetof(ours, field) == offsetof(theirs, other), #field)

LIES(struct rvt_cq_wc, head, RVT_QUEUE_HEAD);
LIES(struct rvt_cq_wc, tail, RVT_QUEUE_TAIL);
LIES(struct rvt_cq_wc, uqueue, RVT_QUEUE_ENTRIES);
SIZE(struct ib_uverbs_wc, RVT_COMPLETION_SIZE);
SIZE(struct ibv_wc, RVT_COMPLETION_SIZE);

LIES(struct rvt_rwq, head, RVT_QUEUE_HEAD);
LIES(struct rvt_rwq, tail, RVT_QUEUE_TAIL);
LIES(struct rvt_rwq, wq, RVT_QUEUE_ENTRIES);

LIES(struct rvt_rwqe, wr_id, RVT_RECEIVE_WR_ID);
LIES(struct rvt_rwqe, num_sge, RVT_RECEIVE_SGE_COUNT);
LIES(struct rvt_rwqe, sg_list, RVT_RECEIVE_SGES);
SIZE(((struct rvt_rwqe *)0)->num_sge, 1);

SIZE(struct rvt_wqe_sge, RVT_SGE_SIZE);
SIZE(struct ibv_sge, RVT_SGE_SIZE);
ALIKE(struct ibv_sge, addr, struct rvt_wqe_sge, addr);
ALIKE(struct ibv_sge, length, struct rvt_wqe_sge, length);
ALIKE(struct ibv_sge, lkey, struct rvt_wqe_sge, lkey);
