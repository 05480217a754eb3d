// The connection manager of the simulated kernel (/dev/infiniband/rdma_cm): its command structs, socket addresses, and
// the messages that it sends to the connection managers of other processes.
#ifndef SWIFT_RDMA_SIM_CM_H
#define SWIFT_RDMA_SIM_CM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim_layouts.h"

#include <rdma/rdma_user_cm.h>

/// Address families of rdma_cm. AF_IB is in no header of the C library.
enum { SIM_AF_INET = 2, SIM_AF_INET6 = 10, SIM_AF_IB = 27 };

/// A socket address: struct sockaddr_in, sockaddr_in6 or sockaddr_ib. Embedded in a message, it has no padding.
struct sim_cm_address {
	/// 0: none.
	uint16_t family;
	/// In host byte order; of AF_IB the low 16 bits of the service ID.
	uint16_t port;
	/// sin6_flowinfo, sib_flowinfo; in network byte order.
	uint32_t flow;
	/// In network byte order; an IPv4 address as an IPv4-mapped IPv6 address, which is also its GID.
	uint64_t address[2];
	/// sin6_scope_id, sib_scope_id.
	uint64_t scope;
	/// sib_sid and sib_sid_mask, in host byte order.
	uint64_t service, service_mask;
	/// sib_pkey, in network byte order.
	uint16_t pkey;
	uint16_t reserved[3];
};

/// The size in bytes of a socket address of this family; 0: rdma_cm does not support it.
size_t sim_cm_address_size(uint16_t family);
/// Reads a socket address of up to `size` bytes. Returns false when its family is not supported or it is longer.
bool sim_cm_read_address(const void *bytes, size_t size, struct sim_cm_address *address);
/// Writes a socket address. Returns its size in bytes; 0 without a family.
size_t sim_cm_write_address(const struct sim_cm_address *address, void *bytes);

/// The messages, by the names of IBTA 12.6 (connections) and 12.11 (SIDR). iWARP uses SIM_CM_REQ, SIM_CM_REP and
/// SIM_CM_REJ for the MPA request and reply, and SIM_CM_CLOSE for the end of the TCP connection.
enum sim_cm_kind {
	SIM_CM_REQ = 1,
	SIM_CM_REP,
	SIM_CM_RTU,
	SIM_CM_REJ,
	SIM_CM_DREQ,
	SIM_CM_DREP,
	SIM_CM_SIDR_REQ,
	SIM_CM_SIDR_REP,
	SIM_CM_CLOSE,
};

/// A message, the payload of a wire message of the kind SIM_WIRE_CONNECTION_MANAGER. In host byte order unless a field
/// says otherwise. A receiver checks every field.
struct sim_cm_message {
	/// `enum sim_cm_kind`.
	uint8_t kind;
	/// `enum ibv_qp_type` of a request.
	uint8_t queue_pair_type;
	/// Parameters of a REQ or REP, from the point of view of the sender.
	uint8_t responder_resources, initiator_depth, flow_control, retry_count, rnr_retry_count, srq;
	/// `enum ibv_mtu`; the Local ACK Timeout of the path.
	uint8_t path_mtu, timeout;
	uint8_t traffic_class, service_level;
	/// Number of bytes in `private_data`.
	uint16_t private_data_length;
	uint8_t reserved[2];
	/// Communication IDs of sender and receiver; `receiver` is 0 in a request.
	uint32_t sender, receiver;
	uint32_t queue_pair, qkey;
	/// The PSN with which the receiver begins to send.
	uint32_t starting_psn;
	/// Reason of a REJ, or status of a SIDR_REP.
	uint32_t status;
	uint32_t flow_label;
	/// struct rdma_ucm_ece.
	uint32_t ece_vendor, ece_attributes;
	uint32_t reserved2;
	/// Service ID of a request.
	uint64_t service;
	/// GIDs of sender and receiver, in network byte order.
	uint64_t source_gid[2], destination_gid[2];
	/// IP addresses of a request's sender and receiver (IBTA annex A11).
	struct sim_cm_address source, destination;
	uint8_t private_data[256];
};

/// Offsets that Embedded Swift cannot compute.
enum {
	SIM_CM_BIND_ADDRESS = offsetof(struct rdma_ucm_bind, addr),
	SIM_CM_BIND_SIZE = sizeof(struct rdma_ucm_bind),
	SIM_CM_BIND_IP_ADDRESS = offsetof(struct rdma_ucm_bind_ip, addr),
	SIM_CM_BIND_IP_ID = offsetof(struct rdma_ucm_bind_ip, id),
	SIM_CM_BIND_IP_SIZE = sizeof(struct rdma_ucm_bind_ip),
	SIM_CM_RESOLVE_IP_SOURCE = offsetof(struct rdma_ucm_resolve_ip, src_addr),
	SIM_CM_RESOLVE_IP_DESTINATION = offsetof(struct rdma_ucm_resolve_ip, dst_addr),
	SIM_CM_RESOLVE_IP_ID = offsetof(struct rdma_ucm_resolve_ip, id),
	SIM_CM_RESOLVE_IP_SIZE = sizeof(struct rdma_ucm_resolve_ip),
	SIM_CM_RESOLVE_ADDR_SOURCE = offsetof(struct rdma_ucm_resolve_addr, src_addr),
	SIM_CM_RESOLVE_ADDR_DESTINATION = offsetof(struct rdma_ucm_resolve_addr, dst_addr),
	SIM_CM_RESOLVE_ADDR_SIZE = sizeof(struct rdma_ucm_resolve_addr),
	SIM_CM_JOIN_ADDRESS = offsetof(struct rdma_ucm_join_mcast, addr),
	SIM_CM_JOIN_SIZE = sizeof(struct rdma_ucm_join_mcast),
	SIM_CM_JOIN_IP_ADDRESS = offsetof(struct rdma_ucm_join_ip_mcast, addr),
	SIM_CM_JOIN_IP_ID = offsetof(struct rdma_ucm_join_ip_mcast, id),
	SIM_CM_JOIN_IP_SIZE = sizeof(struct rdma_ucm_join_ip_mcast),
	SIM_CM_QUERY_ADDR_SOURCE = offsetof(struct rdma_ucm_query_addr_resp, src_addr),
	SIM_CM_QUERY_ADDR_DESTINATION = offsetof(struct rdma_ucm_query_addr_resp, dst_addr),
	SIM_CM_QUERY_ADDR_INDEX = offsetof(struct rdma_ucm_query_addr_resp, ibdev_index),
	SIM_CM_QUERY_ADDR_SIZE = sizeof(struct rdma_ucm_query_addr_resp),
	SIM_CM_QUERY_ROUTE_SOURCE = offsetof(struct rdma_ucm_query_route_resp, src_addr),
	SIM_CM_QUERY_ROUTE_DESTINATION = offsetof(struct rdma_ucm_query_route_resp, dst_addr),
	SIM_CM_QUERY_ROUTE_COUNT = offsetof(struct rdma_ucm_query_route_resp, num_paths),
	SIM_CM_QUERY_ROUTE_PORT = offsetof(struct rdma_ucm_query_route_resp, port_num),
	SIM_CM_QUERY_ROUTE_INDEX = offsetof(struct rdma_ucm_query_route_resp, ibdev_index),
	SIM_CM_QUERY_ROUTE_SIZE = sizeof(struct rdma_ucm_query_route_resp),
	SIM_CM_EVENT_PARAMETERS = offsetof(struct rdma_ucm_event_resp, param),
	SIM_CM_EVENT_RESERVED = offsetof(struct rdma_ucm_event_resp, reserved),
	SIM_CM_EVENT_ECE = offsetof(struct rdma_ucm_event_resp, ece),
	SIM_CM_EVENT_SIZE = sizeof(struct rdma_ucm_event_resp),
	SIM_CM_PARAMETERS_DATA = offsetof(struct rdma_ucm_conn_param, private_data),
	SIM_CM_UD_PARAMETERS_DATA = offsetof(struct rdma_ucm_ud_param, private_data),
	/// The sizes of CONNECT and ACCEPT before they had `ece`.
	SIM_CM_CONNECT_SIZE = offsetof(struct rdma_ucm_connect, ece),
	SIM_CM_ACCEPT_SIZE = offsetof(struct rdma_ucm_accept, ece),
	SIM_CM_REJECT_DATA = offsetof(struct rdma_ucm_reject, private_data),
};

/// A port of a port space that a process has bound to all addresses. It is unique among the processes on a wire, as
/// among those of one host: the processes reach each other by a loopback address and that port.
///
/// Allocates it for the port `lid`, which must be open. Returns 0, EADDRINUSE when an open port has it, or another
/// errno value.
int sim_cm_claim(const char *wire, uint16_t space, uint16_t port, uint16_t lid);
/// Shows in the wire's directory that a program listens at an allocated port, for tests that wait for it.
void sim_cm_show_listener(const char *wire, uint16_t space, uint16_t port, uint16_t lid);
/// Releases what sim_cm_claim allocated.
void sim_cm_release(const char *wire, uint16_t space, uint16_t port, uint16_t lid);
/// The LID of the open port that has it; 0: none.
uint16_t sim_cm_owner(const char *wire, uint16_t space, uint16_t port);

#endif
