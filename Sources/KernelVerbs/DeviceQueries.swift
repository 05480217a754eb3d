import CIBVerbs
import CKernelABI

extension KernelDevice {
    /// What the device has and can do, as far as the kernel tells every provider: the rest of `attributes` is left as it
    /// is, `orig_attr.fw_ver` too.
    /// - Returns: the firmware version, in whatever way the driver packs it.
    public func queryDevice(
        _ attributes: inout ibv_device_attr_ex, driver: DriverData = .none
    ) throws(KernelError) -> UInt64 {
        var answer = ib_uverbs_ex_query_device_resp()
        do {
            try call(.queryDeviceExtended, ib_uverbs_ex_query_device(), &answer, driver: driver)
            attributes.fill(from: answer)
        } catch {
            // A kernel before 3.19 has the plain form alone.
            guard error == .notSupported || error.rawValue == ENOSYS else { throw error }
            try call(.queryDevice, ib_uverbs_query_device(), &answer.base)
        }
        attributes.orig_attr.fill(from: answer.base)
        attributes.phys_port_cnt_ex = UInt32(answer.base.phys_port_cnt)
        return answer.base.fw_ver
    }
}

extension ibv_device_attr_ex {
    fileprivate mutating func fill(from answer: ib_uverbs_ex_query_device_resp) {
        odp_caps.general_caps = answer.odp_caps.general_caps
        odp_caps.per_transport_caps.rc_odp_caps = answer.odp_caps.per_transport_caps.rc_odp_caps
        odp_caps.per_transport_caps.uc_odp_caps = answer.odp_caps.per_transport_caps.uc_odp_caps
        odp_caps.per_transport_caps.ud_odp_caps = answer.odp_caps.per_transport_caps.ud_odp_caps
        completion_timestamp_mask = answer.timestamp_mask
        hca_core_clock = answer.hca_core_clock
        device_cap_flags_ex = answer.device_cap_flags_ex
        rss_caps.supported_qpts = answer.rss_caps.supported_qpts
        rss_caps.max_rwq_indirection_tables = answer.rss_caps.max_rwq_indirection_tables
        rss_caps.max_rwq_indirection_table_size = answer.rss_caps.max_rwq_indirection_table_size
        max_wq_type_rq = answer.max_wq_type_rq
        raw_packet_caps = answer.raw_packet_caps
        tm_caps.max_rndv_hdr_size = answer.tm_caps.max_rndv_hdr_size
        tm_caps.max_num_tags = answer.tm_caps.max_num_tags
        tm_caps.flags = answer.tm_caps.flags
        tm_caps.max_ops = answer.tm_caps.max_ops
        tm_caps.max_sge = answer.tm_caps.max_sge
        cq_mod_caps.max_cq_count = answer.cq_moderation_caps.max_cq_moderation_count
        cq_mod_caps.max_cq_period = answer.cq_moderation_caps.max_cq_moderation_period
        max_dm_size = answer.max_dm_size
        xrc_odp_caps = answer.xrc_odp_caps
    }
}

extension ibv_device_attr {
    fileprivate mutating func fill(from answer: ib_uverbs_query_device_resp) {
        node_guid = answer.node_guid
        sys_image_guid = answer.sys_image_guid
        max_mr_size = answer.max_mr_size
        page_size_cap = answer.page_size_cap
        vendor_id = answer.vendor_id
        vendor_part_id = answer.vendor_part_id
        hw_ver = answer.hw_ver
        max_qp = Int32(bitPattern: answer.max_qp)
        max_qp_wr = Int32(bitPattern: answer.max_qp_wr)
        device_cap_flags = answer.device_cap_flags
        max_sge = Int32(bitPattern: answer.max_sge)
        max_sge_rd = Int32(bitPattern: answer.max_sge_rd)
        max_cq = Int32(bitPattern: answer.max_cq)
        max_cqe = Int32(bitPattern: answer.max_cqe)
        max_mr = Int32(bitPattern: answer.max_mr)
        max_pd = Int32(bitPattern: answer.max_pd)
        max_qp_rd_atom = Int32(bitPattern: answer.max_qp_rd_atom)
        max_ee_rd_atom = Int32(bitPattern: answer.max_ee_rd_atom)
        max_res_rd_atom = Int32(bitPattern: answer.max_res_rd_atom)
        max_qp_init_rd_atom = Int32(bitPattern: answer.max_qp_init_rd_atom)
        max_ee_init_rd_atom = Int32(bitPattern: answer.max_ee_init_rd_atom)
        atomic_cap = ibv_atomic_cap(rawValue: answer.atomic_cap)
        max_ee = Int32(bitPattern: answer.max_ee)
        max_rdd = Int32(bitPattern: answer.max_rdd)
        max_mw = Int32(bitPattern: answer.max_mw)
        max_raw_ipv6_qp = Int32(bitPattern: answer.max_raw_ipv6_qp)
        max_raw_ethy_qp = Int32(bitPattern: answer.max_raw_ethy_qp)
        max_mcast_grp = Int32(bitPattern: answer.max_mcast_grp)
        max_mcast_qp_attach = Int32(bitPattern: answer.max_mcast_qp_attach)
        max_total_mcast_qp_attach = Int32(bitPattern: answer.max_total_mcast_qp_attach)
        max_ah = Int32(bitPattern: answer.max_ah)
        max_fmr = Int32(bitPattern: answer.max_fmr)
        max_map_per_fmr = Int32(bitPattern: answer.max_map_per_fmr)
        max_srq = Int32(bitPattern: answer.max_srq)
        max_srq_wr = Int32(bitPattern: answer.max_srq_wr)
        max_srq_sge = Int32(bitPattern: answer.max_srq_sge)
        max_pkeys = answer.max_pkeys
        local_ca_ack_delay = answer.local_ca_ack_delay
        phys_port_cnt = answer.phys_port_cnt
    }
}
