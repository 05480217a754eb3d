// SPDX-License-Identifier: GPL-2.0-only
/*
 * hfi1_0 without hardware, for tests: one loopback adapter on rdmavt, the software half of the kernel's hfi1 driver.
 * Every packet is delivered to a queue pair of the same adapter.
 *
 * To user space it is an hfi1: the driver ID, rdmavt's commands and queues, LIDs, an Omni-Path port. rdmavt itself
 * loops back RC and UC; this module loops back UD and multicast. It has no MADs, hence no connection manager.
 *
 * Copyright (c) 2026, the swift-rdma maintainers
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <rdma/ib_pack.h>
#include <rdma/rdmavt_qp.h>
#include <rdma/rdma_vt.h>

#define LID 1
#define GUID 0x0200000000000001ULL
#define GID_PREFIX cpu_to_be64(0xfe80000000000000ULL) /* IBTA volume 1, 4.1.1 */
#define DEFAULT_PKEY 0xffff
#define PSN_MASK 0xffffff

struct adapter {
	struct rvt_dev_info rdi; /* first member: freeing its ib_device frees the adapter */
	struct rvt_ibport port;
	struct pci_dev *pci; /* any device: rdmavt prefixes its log messages with the name */
	u16 pkeys[1];
};

/* qp->priv: the work item that sends asynchronously. */
struct sender {
	struct rvt_qp *qp;
	struct work_struct work;
};

static struct adapter *adapter;

/* ---- sending: rdmavt's send queue is processed in order, by one thread at a time ---- */

/* Delivers a datagram to a queue pair of this adapter, or drops it. Runs under RCU. */
static void deliver(struct rvt_qp *from, struct rvt_swqe *wqe, struct rvt_qp *to)
{
	struct rdma_ah_attr *address = rvt_get_swqe_ah_attr(wqe);
	bool is_routed = rdma_ah_get_ah_flags(address) & IB_AH_GRH;
	u32 qkey = rvt_get_swqe_remote_qkey(wqe);
	u32 left = wqe->length;
	struct rvt_sge_state source = { .sg_list = wqe->sg_list + 1, .sge = wqe->sg_list[0],
					.num_sge = wqe->wr.num_sge };
	struct ib_wc wc = { .opcode = IB_WC_RECV, .status = IB_WC_SUCCESS, .qp = &to->ibqp,
			    .byte_len = left + sizeof(struct ib_grh), .src_qp = from->ibqp.qp_num, .slid = LID,
			    .sl = rdma_ah_get_sl(address), .port_num = to->port_num,
			    .wc_flags = is_routed ? IB_WC_GRH : 0 };
	unsigned long flags;
	int found;

	/* IBTA volume 1, 10.2.5: a Q_Key with its highest bit set selects the sending queue pair's Q_Key. */
	if (qkey & BIT(31))
		qkey = from->qkey;
	if (to->ibqp.qp_type != IB_QPT_UD || qkey != to->qkey)
		return;
	if (wqe->wr.opcode == IB_WR_SEND_WITH_IMM) {
		wc.wc_flags |= IB_WC_WITH_IMM;
		wc.ex.imm_data = wqe->wr.ex.imm_data;
	}

	spin_lock_irqsave(&to->r_lock, flags);
	if (!(ib_rvt_state_ops[to->state] & RVT_PROCESS_RECV_OK))
		goto unlock;
	/* A receive that was too short for one datagram is used for the next. */
	found = to->r_flags & RVT_R_REUSE_SGE ? 1 : rvt_get_rwqe(to, false);
	to->r_flags &= ~RVT_R_REUSE_SGE;
	if (found < 0)
		rvt_rc_error(to, IB_WC_LOC_QP_OP_ERR);
	if (found <= 0)
		goto unlock;
	if (wc.byte_len > to->r_len) {
		to->r_flags |= RVT_R_REUSE_SGE;
		goto unlock;
	}
	if (is_routed) {
		const struct ib_global_route *route = rdma_ah_read_grh(address);
		struct ib_grh header = {
			.version_tclass_flow = cpu_to_be32(6U << 28 | route->traffic_class << 20 | route->flow_label),
			/* BTH, DETH, data and ICRC (IBTA volume 1, 8.3). */
			.paylen = cpu_to_be16(12 + 8 + left + 4), .next_hdr = 0x1b, .hop_limit = route->hop_limit,
			.sgid.global = { .subnet_prefix = adapter->port.gid_prefix, .interface_id = cpu_to_be64(GUID) },
			.dgid = route->dgid,
		};

		rvt_copy_sge(to, &to->r_sge, &header, sizeof(header), true, false);
	} else {
		rvt_skip_sge(&to->r_sge, sizeof(struct ib_grh), true);
	}
	while (left) {
		u32 part = rvt_get_sge_length(&source.sge, left);

		rvt_copy_sge(to, &to->r_sge, source.sge.vaddr, part, true, false);
		rvt_update_sge(&source, part, false);
		left -= part;
	}
	rvt_put_ss(&to->r_sge);
	if (test_and_clear_bit(RVT_R_WRID_VALID, &to->r_aflags)) {
		wc.wr_id = to->r_wr_id;
		rvt_recv_cq(to, &wc, wqe->wr.send_flags & IB_SEND_SOLICITED);
	}
unlock:
	spin_unlock_irqrestore(&to->r_lock, flags);
}

static void deliver_to_one(struct rvt_qp *from, struct rvt_swqe *wqe)
{
	struct rvt_qp *to = rvt_lookup_qpn(&adapter->rdi, &adapter->port, rvt_get_swqe_remote_qpn(wqe));

	if (to)
		deliver(from, wqe, to);
}

static void deliver_to_all(struct rvt_qp *from, struct rvt_swqe *wqe)
{
	struct rdma_ah_attr *address = rvt_get_swqe_ah_attr(wqe);
	struct rvt_mcast_qp *member;
	struct rvt_mcast *members;
	union ib_gid group;

	if (!(rdma_ah_get_ah_flags(address) & IB_AH_GRH))
		return;
	group = rdma_ah_read_grh(address)->dgid;
	members = rvt_mcast_find(&adapter->port, &group, rdma_ah_get_dlid(address));
	if (!members)
		return;
	list_for_each_entry_rcu(member, &members->qp_list, list)
		if (member->qp != from)
			deliver(from, wqe, member->qp);
	/* The thread that detaches the last member waits until there are no other references. */
	if (atomic_dec_return(&members->refcount) <= 1)
		wake_up(&members->wait);
}

static void send_datagrams(struct rvt_qp *qp)
{
	unsigned long flags;

	spin_lock_irqsave(&qp->s_lock, flags);
	if (qp->s_flags & RVT_S_BUSY)
		goto unlock;
	qp->s_flags |= RVT_S_BUSY;
	while (qp->s_last != READ_ONCE(qp->s_head)) {
		struct rvt_swqe *wqe = rvt_get_swqe_ptr(qp, qp->s_last);
		int may = ib_rvt_state_ops[qp->state];

		if (may & RVT_PROCESS_NEXT_SEND_OK) {
			if (qp->s_cur == qp->s_last)
				qp->s_cur = rvt_qp_swqe_incr(qp, qp->s_cur);
			spin_unlock_irqrestore(&qp->s_lock, flags);
			rcu_read_lock();
			if (rvt_get_swqe_remote_qpn(wqe) == IB_MULTICAST_QPN)
				deliver_to_all(qp, wqe);
			else
				deliver_to_one(qp, wqe);
			rcu_read_unlock();
			spin_lock_irqsave(&qp->s_lock, flags);
		} else if (!(may & RVT_FLUSH_SEND)) {
			break;
		}
		spin_lock(&qp->r_lock);
		rvt_send_complete(qp, wqe, may & RVT_PROCESS_NEXT_SEND_OK ? IB_WC_SUCCESS : IB_WC_WR_FLUSH_ERR);
		spin_unlock(&qp->r_lock);
	}
	qp->s_flags &= ~RVT_S_BUSY;
unlock:
	spin_unlock_irqrestore(&qp->s_lock, flags);
}

static void do_send(struct rvt_qp *qp)
{
	if (qp->ibqp.qp_type == IB_QPT_UD)
		send_datagrams(qp);
	else
		rvt_ruc_loopback(qp);
}

static void send_later(struct work_struct *work)
{
	do_send(container_of(work, struct sender, work)->qp);
}

static bool schedule_send(struct rvt_qp *qp)
{
	return queue_work(system_highpri_wq, &((struct sender *)qp->priv)->work);
}

/* ---- callbacks of rdmavt ---- */

static void *qp_priv_alloc(struct rvt_dev_info *rdi, struct rvt_qp *qp)
{
	struct sender *sender = kzalloc(sizeof(*sender), GFP_KERNEL);

	if (!sender)
		return ERR_PTR(-ENOMEM);
	sender->qp = qp;
	INIT_WORK(&sender->work, send_later);
	return sender;
}

static void qp_priv_free(struct rvt_dev_info *rdi, struct rvt_qp *qp)
{
	kfree(qp->priv);
}

static void stop_send_queue(struct rvt_qp *qp)
{
	cancel_work_sync(&((struct sender *)qp->priv)->work);
}

static void nothing(struct rvt_qp *qp) { }
static void nothing_to_restart(struct rvt_qp *qp, u32 psn, int wait) { }
static void no_change(struct rvt_dev_info *rdi, u32 port) { }
static int no_shut_down(struct rvt_dev_info *rdi, u32 port) { return -EOPNOTSUPP; }
static unsigned int none_left(struct rvt_dev_info *rdi) { return 0; }

static int modify_device(struct ib_device *device, int mask, struct ib_device_modify *change)
{
	return -EOPNOTSUPP;
}

static int pmtu_from_attr(struct rvt_dev_info *rdi, struct rvt_qp *qp, struct ib_qp_attr *attr)
{
	return attr->path_mtu >= IB_MTU_256 && attr->path_mtu <= IB_MTU_4096 ? attr->path_mtu : -EINVAL;
}

static u32 mtu_from_qp(struct rvt_dev_info *rdi, struct rvt_qp *qp, u32 pmtu)
{
	return ib_mtu_enum_to_int(pmtu);
}

static int mtu_to_path_mtu(u32 mtu)
{
	return ib_mtu_int_to_enum(mtu);
}

static struct pci_dev *get_pci_dev(struct rvt_dev_info *rdi)
{
	return adapter->pci;
}

static int get_guid(struct rvt_dev_info *rdi, struct rvt_ibport *port, int index, __be64 *guid)
{
	if (index)
		return -EINVAL;
	*guid = cpu_to_be64(GUID);
	return 0;
}

static int query_port(struct rvt_dev_info *rdi, u32 port, struct ib_port_attr *attr)
{
	attr->lid = LID;
	attr->state = IB_PORT_ACTIVE;
	attr->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	attr->gid_tbl_len = 1;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;
	attr->max_vl_num = 1;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = IB_MTU_4096;
	return 0;
}

/* The only unicast LID is this adapter's own. */
static int check_ah(struct ib_device *device, struct rdma_ah_attr *address)
{
	u32 lid = rdma_ah_get_dlid(address);
	bool is_group = lid >= be16_to_cpu(IB_MULTICAST_LID_BASE) && lid < be16_to_cpu(IB_LID_PERMISSIVE);

	if (is_group)
		return rdma_ah_get_ah_flags(address) & IB_AH_GRH ? 0 : -EINVAL;
	return lid == LID ? 0 : -EINVAL;
}

static void notify_new_ah(struct ib_device *device, struct rdma_ah_attr *attr, struct rvt_ah *ah)
{
	ah->log_pmtu = ilog2(4096);
}

static const struct attribute_group *port_groups[] = { NULL };

static const struct ib_device_ops device_ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_HFI1,
	.modify_device = modify_device,
	.port_groups = port_groups,
};

#define CONNECTED (BIT(IB_QPT_RC) | BIT(IB_QPT_UC))

static const struct rvt_operation_params operations[RVT_OPERATION_MAX] = {
	[IB_WR_RDMA_WRITE] = { sizeof(struct ib_rdma_wr), CONNECTED },
	[IB_WR_RDMA_WRITE_WITH_IMM] = { sizeof(struct ib_rdma_wr), CONNECTED },
	[IB_WR_SEND] = { sizeof(struct ib_send_wr), CONNECTED | BIT(IB_QPT_UD) },
	[IB_WR_SEND_WITH_IMM] = { sizeof(struct ib_send_wr), CONNECTED | BIT(IB_QPT_UD) },
	[IB_WR_SEND_WITH_INV] = { sizeof(struct ib_send_wr), BIT(IB_QPT_RC) },
	[IB_WR_RDMA_READ] = { sizeof(struct ib_rdma_wr), BIT(IB_QPT_RC), RVT_OPERATION_ATOMIC },
	[IB_WR_ATOMIC_CMP_AND_SWP] = { sizeof(struct ib_atomic_wr), BIT(IB_QPT_RC),
				       RVT_OPERATION_ATOMIC | RVT_OPERATION_ATOMIC_SGE },
	[IB_WR_ATOMIC_FETCH_AND_ADD] = { sizeof(struct ib_atomic_wr), BIT(IB_QPT_RC),
					 RVT_OPERATION_ATOMIC | RVT_OPERATION_ATOMIC_SGE },
};

static const enum ib_wc_opcode completed[] = {
	[IB_WR_RDMA_WRITE] = IB_WC_RDMA_WRITE,
	[IB_WR_RDMA_WRITE_WITH_IMM] = IB_WC_RDMA_WRITE,
	[IB_WR_SEND] = IB_WC_SEND,
	[IB_WR_SEND_WITH_IMM] = IB_WC_SEND,
	[IB_WR_SEND_WITH_INV] = IB_WC_SEND,
	[IB_WR_RDMA_READ] = IB_WC_RDMA_READ,
	[IB_WR_ATOMIC_CMP_AND_SWP] = IB_WC_COMP_SWAP,
	[IB_WR_ATOMIC_FETCH_AND_ADD] = IB_WC_FETCH_ADD,
};

static const struct rvt_driver_provided calls = {
	.schedule_send = schedule_send,
	.schedule_send_no_lock = schedule_send,
	.do_send = do_send,
	.get_pci_dev = get_pci_dev,
	.qp_priv_alloc = qp_priv_alloc,
	.qp_priv_free = qp_priv_free,
	.notify_qp_reset = nothing,
	.get_pmtu_from_attr = pmtu_from_attr,
	.flush_qp_waiters = nothing,
	.stop_send_queue = stop_send_queue,
	.quiesce_qp = stop_send_queue, /* again: a timer may have queued the work since stop_send_queue */
	.notify_error_qp = nothing,
	.mtu_from_qp = mtu_from_qp,
	.mtu_to_path_mtu = mtu_to_path_mtu,
	.get_guid_be = get_guid,
	.query_port_state = query_port,
	.shut_down_port = no_shut_down,
	.cap_mask_chg = no_change,
	.free_all_qps = none_left,
	.check_ah = check_ah,
	.notify_new_ah = notify_new_ah,
	.notify_restart_rc = nothing_to_restart,
};

/* Approximately the limits of hfi1. rdmavt checks against these and reports them to user space. */
static const struct ib_device_attr limits = {
	.sys_image_guid = cpu_to_be64(GUID),
	.device_cap_flags = IB_DEVICE_SRQ_RESIZE | IB_DEVICE_RC_RNR_NAK_GEN | IB_DEVICE_MEM_MGT_EXTENSIONS,
	.vendor_id = 0x1175,
	.vendor_part_id = 0x24f0,
	.page_size_cap = PAGE_SIZE,
	.max_mr_size = U64_MAX,
	.max_qp = 1024,
	.max_qp_wr = 0x3fff,
	.max_send_sge = 0x60,
	.max_recv_sge = 0x60,
	.max_sge_rd = 0x60,
	.max_cq = 1024,
	.max_cqe = 0x2ffff,
	.max_pd = 1024,
	.max_ah = 1024,
	.max_qp_rd_atom = 16,
	.max_qp_init_rd_atom = 255,
	.max_srq = 1024,
	.max_srq_wr = 0x1ffff,
	.max_srq_sge = 128,
	.atomic_cap = IB_ATOMIC_GLOB,
	.max_pkeys = 1,
	.max_mcast_grp = 128,
	.max_mcast_qp_attach = 16,
	.max_total_mcast_qp_attach = 128 * 16,
};

static int __init loopback_init(void)
{
	struct rvt_driver_params *params;
	int error;

	adapter = container_of(rvt_alloc_device(sizeof(*adapter), 1), struct adapter, rdi);
	if (!adapter)
		return -ENOMEM;
	adapter->pci = pci_get_device(PCI_ANY_ID, PCI_ANY_ID, NULL);
	adapter->pkeys[0] = DEFAULT_PKEY;
	spin_lock_init(&adapter->port.lock);
	adapter->port.gid_prefix = GID_PREFIX;

	params = &adapter->rdi.dparms;
	params->props = limits;
	params->lkey_table_size = 12; /* bits */
	params->qp_table_size = 256;
	params->qpn_start = 1;
	params->qpn_inc = 1;
	params->qpn_res_start = RVT_KDETH_QP_BASE;
	params->qpn_res_end = RVT_AIP_QP_MAX;
	params->nports = 0; /* with MADs */
	params->npkeys = 1;
	params->node = first_online_node;
	params->psn_mask = PSN_MASK;
	params->psn_modify_mask = PSN_MASK;
	params->core_cap_flags = RDMA_CORE_CAP_PROT_IB | RDMA_CORE_CAP_OPA_AH;
	params->max_rdma_atomic = 16;
	params->reserved_operations = 1;
	adapter->rdi.driver_f = calls;
	adapter->rdi.post_parms = operations;
	adapter->rdi.wc_opcode = completed;
	adapter->rdi.ibdev.node_guid = cpu_to_be64(GUID);
	adapter->rdi.ibdev.phys_port_cnt = 1;
	strscpy(adapter->rdi.ibdev.node_desc, "rdmavt_loopback", sizeof(adapter->rdi.ibdev.node_desc));
	ib_set_device_ops(&adapter->rdi.ibdev, &device_ops);
	rvt_set_ibdev_name(&adapter->rdi, "%s_%d", "hfi1", 0);
	rvt_init_port(&adapter->rdi, &adapter->port, 0, adapter->pkeys);

	error = adapter->pci ? rvt_register_device(&adapter->rdi) : -ENODEV;
	if (error) {
		pci_dev_put(adapter->pci);
		rvt_dealloc_device(&adapter->rdi);
	}
	return error;
}

static void __exit loopback_exit(void)
{
	rvt_unregister_device(&adapter->rdi);
	pci_dev_put(adapter->pci);
	rvt_dealloc_device(&adapter->rdi);
}

module_init(loopback_init);
module_exit(loopback_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("An hfi1 adapter without hardware, alone on its fabric, for tests");
