#include "rdma_cm_node.h"

/* The sizes of the kernel's ABI. */
_Static_assert(sizeof(struct rdma_ucm_event_resp) == 336, "struct rdma_ucm_event_resp");
_Static_assert(sizeof(struct rdma_ucm_connect) == 288, "struct rdma_ucm_connect");
_Static_assert(sizeof(struct rdma_ucm_query_route_resp) == 208, "struct rdma_ucm_query_route_resp");
