/* device.c - the queries of the device: limits, port, GIDs, P_Keys */
#include "ctest.h"

#include <arpa/inet.h>

pthread_mutex_t ctest_fabric = PTHREAD_MUTEX_INITIALIZER;

bool ctest_has_failed(struct ibv_context *context)
{
	bool failed;

	ctest_lock();
	failed = ctest_context(context)->failed;
	ctest_unlock();
	return failed;
}

void ctest_device_fatal(struct ctest_context *context)
{
	struct ctest_qp *qp = NULL;
	struct ctest_channel *channel;

	context->failed = true;
	while ((qp = ctest_next_qp(qp)))
		if (qp->verbs.qp_base.context == &context->verbs.context)
			ctest_enter_error(qp);
	for (channel = context->channels; channel; channel = channel->next)
		ctest_queue_fail(&channel->queue);
	ctest_raise(&context->verbs.context, IBV_EVENT_DEVICE_FATAL, NULL);
	ctest_queue_fail(&context->events);
}

/* Copies a struct that may be larger or smaller than the caller's. */
static void copy_sized(void *to, size_t to_size, const void *from, size_t from_size)
{
	size_t common = to_size < from_size ? to_size : from_size;

	memcpy(to, from, common);
	memset((uint8_t *)to + common, 0, to_size - common);
}

static struct ibv_device_attr device_attr(const struct ctest_context *context)
{
	return (struct ibv_device_attr){
		.fw_ver = "1.0",
		.node_guid = context->guid,
		.sys_image_guid = context->guid,
		.max_mr_size = UINT64_MAX,
		.page_size_cap = 4096,
		.max_qp = CTEST_MAX_QP,
		.max_qp_wr = CTEST_MAX_WR,
		.max_sge = CTEST_MAX_SGE,
		.max_sge_rd = CTEST_MAX_SGE,
		.max_cq = 1 << 16,
		.max_cqe = CTEST_MAX_CQE,
		.max_mr = CTEST_MAX_MR,
		.max_pd = 1 << 16,
		.max_qp_rd_atom = 16,
		.max_res_rd_atom = 16 * CTEST_MAX_QP,
		.max_qp_init_rd_atom = 16,
		.atomic_cap = IBV_ATOMIC_HCA,
		.max_ah = 1 << 16,
		.max_srq = 1 << 16,
		.max_srq_wr = CTEST_MAX_WR,
		.max_srq_sge = CTEST_MAX_SGE,
		.max_pkeys = 1,
		.local_ca_ack_delay = 15,
		.phys_port_cnt = 1,
	};
}

int ctest_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			  struct ibv_device_attr_ex *attr, size_t attr_size)
{
	struct ibv_device_attr_ex result = { 0 };

	if (ctest_has_failed(context))
		return EIO;
	if (input && input->comp_mask)
		return EOPNOTSUPP;
	if (attr_size < sizeof(result.orig_attr))
		return EINVAL;
	result.orig_attr = device_attr(ctest_context(context));
	result.phys_port_cnt_ex = 1;
	copy_sized(attr, attr_size, &result, sizeof(result));
	return 0;
}

int ctest_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t attr_size)
{
	const struct ibv_port_attr result = {
		.state = IBV_PORT_ACTIVE,
		.max_mtu = IBV_MTU_4096,
		.active_mtu = IBV_MTU_1024,
		.gid_tbl_len = CTEST_GIDS,
		.max_msg_sz = CTEST_MAX_MESSAGE,
		.pkey_tbl_len = 1,
		.max_vl_num = 1,
		.active_width = 1, /* 1X */
		.active_speed = 1, /* 2.5 Gb/s */
		.phys_state = 5,   /* link up */
		.link_layer = IBV_LINK_LAYER_ETHERNET,
	};

	if (ctest_has_failed(context))
		return EIO;
	if (port != CTEST_PORT)
		return EINVAL;
	copy_sized(attr, attr_size, &result, sizeof(result));
	return 0;
}

/* The order of GIDs on a RoCE device: the link-local address for RoCEv1 and for RoCEv2, an IPv4 address, and then
 * empty entries. */
enum { GID_LINK_LOCAL_V1, GID_LINK_LOCAL_V2, GID_IPV4, GIDS_USED };

void ctest_fill_gids(struct ctest_context *context)
{
	static const union ibv_gid link_local = { .raw = { 0xfe, 0x80 } };
	static const union ibv_gid loopback = { .raw = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };

	context->gids[GID_LINK_LOCAL_V1] = link_local;
	context->gids[GID_LINK_LOCAL_V1].global.interface_id = context->guid;
	context->gids[GID_LINK_LOCAL_V2] = context->gids[GID_LINK_LOCAL_V1];
	context->gids[GID_IPV4] = loopback;
}

bool ctest_has_gid(const struct ctest_context *context, const union ibv_gid *gid)
{
	for (int i = 0; i < GIDS_USED; i++)
		if (!memcmp(&context->gids[i], gid, sizeof(*gid)))
			return true;
	return false;
}

bool ctest_ah_attr_valid(const struct ibv_ah_attr *attr)
{
	/* RoCE has no LIDs, so every address vector needs a GID. */
	return attr->is_global && attr->port_num == CTEST_PORT && attr->grh.sgid_index < GIDS_USED;
}

static struct ibv_gid_entry gid_entry(const struct ctest_context *context, uint32_t index)
{
	return (struct ibv_gid_entry){
		.gid = context->gids[index],
		.gid_index = index,
		.port_num = CTEST_PORT,
		.gid_type = index == GID_LINK_LOCAL_V1 ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2,
		.ndev_ifindex = 1, /* lo */
	};
}

int ctest_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
		       uint32_t flags, size_t entry_size)
{
	struct ibv_gid_entry result;

	if (ctest_has_failed(context))
		return EIO;
	if (flags)
		return EOPNOTSUPP;
	if (port != CTEST_PORT || index >= CTEST_GIDS)
		return EINVAL;
	if (index >= GIDS_USED)
		return ENODATA;
	result = gid_entry(ctest_context(context), index);
	copy_sized(entry, entry_size, &result, sizeof(result));
	return 0;
}

ssize_t ctest_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries,
			      uint32_t flags, size_t entry_size)
{
	struct ibv_gid_entry result;

	if (ctest_has_failed(context))
		return -EIO;
	if (flags)
		return -EOPNOTSUPP;
	if (max_entries < GIDS_USED)
		return -EINVAL;
	for (uint32_t i = 0; i < GIDS_USED; i++) {
		result = gid_entry(ctest_context(context), i);
		copy_sized((uint8_t *)entries + i * entry_size, entry_size, &result, sizeof(result));
	}
	return GIDS_USED;
}

int ctest_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	if (ctest_has_failed(context))
		return EIO;
	if (port != CTEST_PORT || index != 0)
		return EINVAL;
	*pkey = htons(CTEST_PKEY);
	return 0;
}
