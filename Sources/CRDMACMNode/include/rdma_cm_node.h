/*
 * rdma_cm_node.h - the commands of /dev/infiniband/rdma_cm (<rdma/rdma_user_cm.h>), for Swift: the structs, and the offsets
 * of fields behind a struct sockaddr, of which the kernel's headers and the C library's have each their own.
 */
#ifndef RDMA_CM_NODE_H
#define RDMA_CM_NODE_H

/* Before the kernel's own headers of the same types, which then stand back. */
#include <netinet/in.h>
#include <stddef.h>

#include <infiniband/verbs.h>

/* <rdma/rdma_cma.h> has enumerators of these names, in other types. */
#define RDMA_PS_IPOIB RDMA_UCM_PS_IPOIB
#define RDMA_PS_IB RDMA_UCM_PS_IB
#define RDMA_PS_TCP RDMA_UCM_PS_TCP
#define RDMA_PS_UDP RDMA_UCM_PS_UDP
#define RDMA_OPTION_ID RDMA_UCM_OPTION_ID
#define RDMA_OPTION_IB RDMA_UCM_OPTION_IB
#define RDMA_OPTION_ID_TOS RDMA_UCM_OPTION_ID_TOS
#define RDMA_OPTION_ID_REUSEADDR RDMA_UCM_OPTION_ID_REUSEADDR
#define RDMA_OPTION_ID_AFONLY RDMA_UCM_OPTION_ID_AFONLY
#define RDMA_OPTION_ID_ACK_TIMEOUT RDMA_UCM_OPTION_ID_ACK_TIMEOUT
#define RDMA_OPTION_IB_PATH RDMA_UCM_OPTION_IB_PATH
#define RDMA_MC_JOIN_FLAG_FULLMEMBER RDMA_UCM_MC_JOIN_FLAG_FULLMEMBER
#define RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER RDMA_UCM_MC_JOIN_FLAG_SENDONLY_FULLMEMBER
#define RDMA_MC_JOIN_FLAG_RESERVED RDMA_UCM_MC_JOIN_FLAG_RESERVED
#include <rdma/rdma_user_cm.h>
#undef RDMA_PS_IPOIB
#undef RDMA_PS_IB
#undef RDMA_PS_TCP
#undef RDMA_PS_UDP
#undef RDMA_OPTION_ID
#undef RDMA_OPTION_IB
#undef RDMA_OPTION_ID_TOS
#undef RDMA_OPTION_ID_REUSEADDR
#undef RDMA_OPTION_ID_AFONLY
#undef RDMA_OPTION_ID_ACK_TIMEOUT
#undef RDMA_OPTION_IB_PATH
#undef RDMA_MC_JOIN_FLAG_FULLMEMBER
#undef RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER
#undef RDMA_MC_JOIN_FLAG_RESERVED

enum {
	RDMA_CM_NODE_BIND_IP_ADDRESS = offsetof(struct rdma_ucm_bind_ip, addr),
	RDMA_CM_NODE_BIND_IP_ID = offsetof(struct rdma_ucm_bind_ip, id),
	RDMA_CM_NODE_BIND_IP_SIZE = sizeof(struct rdma_ucm_bind_ip),
	RDMA_CM_NODE_BIND_ID = offsetof(struct rdma_ucm_bind, id),
	RDMA_CM_NODE_BIND_ADDRESS_SIZE = offsetof(struct rdma_ucm_bind, addr_size),
	RDMA_CM_NODE_BIND_RESERVED = offsetof(struct rdma_ucm_bind, reserved),
	RDMA_CM_NODE_BIND_ADDRESS = offsetof(struct rdma_ucm_bind, addr),
	RDMA_CM_NODE_BIND_SIZE = sizeof(struct rdma_ucm_bind),
	RDMA_CM_NODE_RESOLVE_IP_SOURCE = offsetof(struct rdma_ucm_resolve_ip, src_addr),
	RDMA_CM_NODE_RESOLVE_IP_DESTINATION = offsetof(struct rdma_ucm_resolve_ip, dst_addr),
	RDMA_CM_NODE_RESOLVE_IP_ID = offsetof(struct rdma_ucm_resolve_ip, id),
	RDMA_CM_NODE_RESOLVE_IP_SIZE = sizeof(struct rdma_ucm_resolve_ip),
	RDMA_CM_NODE_RESOLVE_ADDR_ID = offsetof(struct rdma_ucm_resolve_addr, id),
	RDMA_CM_NODE_RESOLVE_ADDR_SOURCE_SIZE = offsetof(struct rdma_ucm_resolve_addr, src_size),
	RDMA_CM_NODE_RESOLVE_ADDR_DESTINATION_SIZE = offsetof(struct rdma_ucm_resolve_addr, dst_size),
	RDMA_CM_NODE_RESOLVE_ADDR_RESERVED = offsetof(struct rdma_ucm_resolve_addr, reserved),
	RDMA_CM_NODE_RESOLVE_ADDR_SOURCE = offsetof(struct rdma_ucm_resolve_addr, src_addr),
	RDMA_CM_NODE_RESOLVE_ADDR_DESTINATION = offsetof(struct rdma_ucm_resolve_addr, dst_addr),
	RDMA_CM_NODE_RESOLVE_ADDR_SIZE = sizeof(struct rdma_ucm_resolve_addr),
	RDMA_CM_NODE_JOIN_IP_ADDRESS = offsetof(struct rdma_ucm_join_ip_mcast, addr),
	RDMA_CM_NODE_JOIN_IP_ID = offsetof(struct rdma_ucm_join_ip_mcast, id),
	RDMA_CM_NODE_JOIN_IP_SIZE = sizeof(struct rdma_ucm_join_ip_mcast),
	/* JOIN_IP_MCAST has the first two as well. */
	RDMA_CM_NODE_JOIN_RESPONSE = offsetof(struct rdma_ucm_join_mcast, response),
	RDMA_CM_NODE_JOIN_UID = offsetof(struct rdma_ucm_join_mcast, uid),
	RDMA_CM_NODE_JOIN_ID = offsetof(struct rdma_ucm_join_mcast, id),
	RDMA_CM_NODE_JOIN_ADDRESS_SIZE = offsetof(struct rdma_ucm_join_mcast, addr_size),
	RDMA_CM_NODE_JOIN_FLAGS = offsetof(struct rdma_ucm_join_mcast, join_flags),
	RDMA_CM_NODE_JOIN_ADDRESS = offsetof(struct rdma_ucm_join_mcast, addr),
	RDMA_CM_NODE_JOIN_SIZE = sizeof(struct rdma_ucm_join_mcast),
	RDMA_CM_NODE_ROUTE_PATHS = offsetof(struct rdma_ucm_query_route_resp, ib_route),
	RDMA_CM_NODE_ROUTE_SOURCE = offsetof(struct rdma_ucm_query_route_resp, src_addr),
	RDMA_CM_NODE_ROUTE_DESTINATION = offsetof(struct rdma_ucm_query_route_resp, dst_addr),
	RDMA_CM_NODE_ROUTE_COUNT = offsetof(struct rdma_ucm_query_route_resp, num_paths),
	RDMA_CM_NODE_ROUTE_PORT = offsetof(struct rdma_ucm_query_route_resp, port_num),
	RDMA_CM_NODE_ROUTE_INDEX = offsetof(struct rdma_ucm_query_route_resp, ibdev_index),
	RDMA_CM_NODE_ROUTE_SIZE = sizeof(struct rdma_ucm_query_route_resp),
	RDMA_CM_NODE_ADDR_PORT = offsetof(struct rdma_ucm_query_addr_resp, port_num),
	RDMA_CM_NODE_ADDR_PKEY = offsetof(struct rdma_ucm_query_addr_resp, pkey),
	RDMA_CM_NODE_ADDR_SOURCE_SIZE = offsetof(struct rdma_ucm_query_addr_resp, src_size),
	RDMA_CM_NODE_ADDR_DESTINATION_SIZE = offsetof(struct rdma_ucm_query_addr_resp, dst_size),
	RDMA_CM_NODE_ADDR_SOURCE = offsetof(struct rdma_ucm_query_addr_resp, src_addr),
	RDMA_CM_NODE_ADDR_DESTINATION = offsetof(struct rdma_ucm_query_addr_resp, dst_addr),
	RDMA_CM_NODE_ADDR_INDEX = offsetof(struct rdma_ucm_query_addr_resp, ibdev_index),
	RDMA_CM_NODE_ADDR_SIZE = sizeof(struct rdma_ucm_query_addr_resp),
	RDMA_CM_NODE_QUERY_PATH_DATA = offsetof(struct rdma_ucm_query_path_resp, path_data),
	RDMA_CM_NODE_EVENT_RESERVED = offsetof(struct rdma_ucm_event_resp, reserved),
	/* The sizes of CONNECT and ACCEPT before they had `ece`. */
	RDMA_CM_NODE_CONNECT_SIZE = offsetof(struct rdma_ucm_connect, ece),
	RDMA_CM_NODE_ACCEPT_SIZE = offsetof(struct rdma_ucm_accept, ece),
	RDMA_CM_NODE_REJECT_DATA = offsetof(struct rdma_ucm_reject, private_data),
};

#endif
