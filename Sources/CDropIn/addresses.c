#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "behind.h"

#include <arpa/inet.h>
#include <netinet/ip.h>

DROPIN_EXPORT_AGAIN(ibv_create_ah)
struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	BEHIND_OBJECT(pd->context, ibv_create_ah, pd, attr);
	return OBJECT(pd->context, create_ah, destroy_ah, pd, attr);
}

DROPIN_EXPORT_AGAIN(ibv_destroy_ah)
int ibv_destroy_ah(struct ibv_ah *ah)
{
	BEHIND_STATUS(ah->context, ibv_destroy_ah, ah);
	return STATUS(ah->context, destroy_ah, ah);
}

/* What the first 40 bytes of a datagram's receive buffer say. */
struct received_route {
	union ibv_gid source;
	union ibv_gid destination;
	uint32_t flow_label;
	uint8_t traffic_class;
};

static union ibv_gid gid_of_ipv4(uint32_t address)
{
	union ibv_gid gid = {};

	gid.raw[10] = gid.raw[11] = 0xff;
	memcpy(gid.raw + 12, &address, sizeof(address));
	return gid;
}

static bool is_zero(const void *bytes, size_t count)
{
	static const uint8_t zeros[20];

	return !memcmp(bytes, zeros, count);
}

/* RoCEv2 over IPv4 leaves its header in the last 20 of the 40 bytes (RoCEv2 annex, A17.4.5.2). What is before it need not be
 * zero, so the header's own checksum decides between the two formats. */
static bool read_ipv4(const struct ibv_grh *grh, struct received_route *route)
{
	struct iphdr header;
	const uint16_t *words = (const uint16_t *)(const void *)&header;
	uint32_t sum = 0;
	size_t index;

	memcpy(&header, (const char *)grh + sizeof(*grh) - sizeof(header), sizeof(header));
	if (header.version != 4 || header.ihl != sizeof(header) / 4)
		return false;
	for (index = 0; index < sizeof(header) / sizeof(*words); index++)
		sum += words[index];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	/* A checksum of 0 is one that was not computed: then the bytes before the header must be zero. */
	if (sum != 0xffff && (header.check != 0 || !is_zero(grh, 20)))
		return false;
	route->source = gid_of_ipv4(header.saddr);
	route->destination = gid_of_ipv4(header.daddr);
	route->flow_label = 0;
	route->traffic_class = header.tos;
	return true;
}

static bool read_route(const struct ibv_grh *grh, struct received_route *route)
{
	uint32_t first = ntohl(grh->version_tclass_flow);

	if (read_ipv4(grh, route))
		return true;
	if (first >> 28 != 6)
		return false;
	route->source = grh->sgid;
	route->destination = grh->dgid;
	route->traffic_class = (uint8_t)(first >> 20);
	route->flow_label = first & 0xfffff;
	return true;
}

/* The GID index of a port's own GID, or -1 and errno. RoCE v2 goes before the types that this datagram cannot have. */
static int index_of_gid(struct ibv_context *context, uint8_t port, const union ibv_gid *gid)
{
	struct ibv_port_attr attr = {};
	struct ibv_gid_entry entry;
	int found = -1;
	int index;
	int error = STATUS(context, query_port, context, port, &attr, sizeof(attr));

	if (error)
		return minus_one(error);
	for (index = 0; index < attr.gid_tbl_len; index++) {
		if (STATUS(context, query_gid_ex, context, port, (uint32_t)index, &entry, 0, sizeof(entry)) ||
		    memcmp(&entry.gid, gid, sizeof(*gid)))
			continue;
		if (entry.gid_type == IBV_GID_TYPE_ROCE_V2)
			return index;
		if (found < 0)
			found = index;
	}
	return found < 0 ? minus_one(ENOENT) : found;
}

DROPIN_EXPORT int ibv_init_ah_from_wc(struct ibv_context *context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
				      struct ibv_ah_attr *attr)
{
	struct received_route route;
	int index;

	if (!is_provided(context))
		return behind.ibv_init_ah_from_wc ? behind.ibv_init_ah_from_wc(context, port, wc, grh, attr) :
						    minus_one(EOPNOTSUPP);
	memset(attr, 0, sizeof(*attr));
	attr->dlid = wc->slid;
	attr->sl = wc->sl;
	attr->src_path_bits = wc->dlid_path_bits;
	attr->port_num = port;
	if (!(wc->wc_flags & IBV_WC_GRH))
		return 0;
	if (!read_route(grh, &route))
		return minus_one(EINVAL);
	/* The address to which the peer sent is the source of the answer; not so a multicast group. */
	index = index_of_gid(context, port, &route.destination);
	if (index < 0)
		return -1;
	attr->is_global = 1;
	attr->grh.dgid = route.source;
	attr->grh.sgid_index = (uint8_t)index;
	attr->grh.flow_label = route.flow_label;
	attr->grh.traffic_class = route.traffic_class;
	attr->grh.hop_limit = UINT8_MAX;
	return 0;
}

DROPIN_EXPORT struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh,
						   uint8_t port)
{
	struct ibv_ah_attr attr;

	BEHIND_OBJECT(pd->context, ibv_create_ah_from_wc, pd, wc, grh, port);
	return ibv_init_ah_from_wc(pd->context, port, wc, grh, &attr) ? NULL : ibv_create_ah(pd, &attr);
}

DROPIN_EXPORT int ibv_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr,
					      uint8_t mac[ETHERNET_LL_SIZE], uint16_t *vlan)
{
	/* For providers of Ethernet adapters in C, inside libibverbs. Ours resolve addresses in create_ah and modify_qp. */
	BEHIND_STATUS(context, ibv_resolve_eth_l2_from_gid, context, attr, mac, vlan);
	return EOPNOTSUPP;
}
