import CIBVerbs
import CKernelABI

extension KernelDevice {
    /// Queries the device attributes (`ibv_query_device_ex`, `struct ib_uverbs_ex_query_device`). Sets the fields of
    /// `attributes` that the kernel reports for every driver; the others are unchanged, including `orig_attr.fw_ver`.
    /// - Returns: The firmware version (`fw_ver`), in the driver's encoding.
    public func queryDevice(
        _ attributes: inout ibv_device_attr_ex, driver: DriverData = .none
    ) throws(KernelError) -> UInt64 {
        var response = ib_uverbs_ex_query_device_resp()
        do {
            try call(.queryDeviceExtended, ib_uverbs_ex_query_device(), &response, driver: driver)
            attributes.fill(from: response)
        } catch {
            // A kernel before 3.19 supports only the plain QUERY_DEVICE.
            guard error == .notSupported || error.rawValue == ENOSYS else { throw error }
            try call(.queryDevice, ib_uverbs_query_device(), &response.base)
        }
        attributes.orig_attr.fill(from: response.base)
        attributes.phys_port_cnt_ex = UInt32(response.base.phys_port_cnt)
        return response.base.fw_ver
    }
}

extension ibv_device_attr_ex {
    fileprivate mutating func fill(from response: ib_uverbs_ex_query_device_resp) {
        odp_caps.general_caps = response.odp_caps.general_caps
        odp_caps.per_transport_caps.rc_odp_caps = response.odp_caps.per_transport_caps.rc_odp_caps
        odp_caps.per_transport_caps.uc_odp_caps = response.odp_caps.per_transport_caps.uc_odp_caps
        odp_caps.per_transport_caps.ud_odp_caps = response.odp_caps.per_transport_caps.ud_odp_caps
        completion_timestamp_mask = response.timestamp_mask
        hca_core_clock = response.hca_core_clock
        device_cap_flags_ex = response.device_cap_flags_ex
        rss_caps.supported_qpts = response.rss_caps.supported_qpts
        rss_caps.max_rwq_indirection_tables = response.rss_caps.max_rwq_indirection_tables
        rss_caps.max_rwq_indirection_table_size = response.rss_caps.max_rwq_indirection_table_size
        max_wq_type_rq = response.max_wq_type_rq
        raw_packet_caps = response.raw_packet_caps
        tm_caps.max_rndv_hdr_size = response.tm_caps.max_rndv_hdr_size
        tm_caps.max_num_tags = response.tm_caps.max_num_tags
        tm_caps.flags = response.tm_caps.flags
        tm_caps.max_ops = response.tm_caps.max_ops
        tm_caps.max_sge = response.tm_caps.max_sge
        cq_mod_caps.max_cq_count = response.cq_moderation_caps.max_cq_moderation_count
        cq_mod_caps.max_cq_period = response.cq_moderation_caps.max_cq_moderation_period
        max_dm_size = response.max_dm_size
        xrc_odp_caps = response.xrc_odp_caps
    }
}

extension ibv_device_attr {
    fileprivate mutating func fill(from response: ib_uverbs_query_device_resp) {
        node_guid = response.node_guid
        sys_image_guid = response.sys_image_guid
        max_mr_size = response.max_mr_size
        page_size_cap = response.page_size_cap
        vendor_id = response.vendor_id
        vendor_part_id = response.vendor_part_id
        hw_ver = response.hw_ver
        max_qp = Int32(bitPattern: response.max_qp)
        max_qp_wr = Int32(bitPattern: response.max_qp_wr)
        device_cap_flags = response.device_cap_flags
        max_sge = Int32(bitPattern: response.max_sge)
        max_sge_rd = Int32(bitPattern: response.max_sge_rd)
        max_cq = Int32(bitPattern: response.max_cq)
        max_cqe = Int32(bitPattern: response.max_cqe)
        max_mr = Int32(bitPattern: response.max_mr)
        max_pd = Int32(bitPattern: response.max_pd)
        max_qp_rd_atom = Int32(bitPattern: response.max_qp_rd_atom)
        max_ee_rd_atom = Int32(bitPattern: response.max_ee_rd_atom)
        max_res_rd_atom = Int32(bitPattern: response.max_res_rd_atom)
        max_qp_init_rd_atom = Int32(bitPattern: response.max_qp_init_rd_atom)
        max_ee_init_rd_atom = Int32(bitPattern: response.max_ee_init_rd_atom)
        atomic_cap = ibv_atomic_cap(rawValue: response.atomic_cap)
        max_ee = Int32(bitPattern: response.max_ee)
        max_rdd = Int32(bitPattern: response.max_rdd)
        max_mw = Int32(bitPattern: response.max_mw)
        max_raw_ipv6_qp = Int32(bitPattern: response.max_raw_ipv6_qp)
        max_raw_ethy_qp = Int32(bitPattern: response.max_raw_ethy_qp)
        max_mcast_grp = Int32(bitPattern: response.max_mcast_grp)
        max_mcast_qp_attach = Int32(bitPattern: response.max_mcast_qp_attach)
        max_total_mcast_qp_attach = Int32(bitPattern: response.max_total_mcast_qp_attach)
        max_ah = Int32(bitPattern: response.max_ah)
        max_fmr = Int32(bitPattern: response.max_fmr)
        max_map_per_fmr = Int32(bitPattern: response.max_map_per_fmr)
        max_srq = Int32(bitPattern: response.max_srq)
        max_srq_wr = Int32(bitPattern: response.max_srq_wr)
        max_srq_sge = Int32(bitPattern: response.max_srq_sge)
        max_pkeys = response.max_pkeys
        local_ca_ack_delay = response.local_ca_ack_delay
        phys_port_cnt = response.phys_port_cnt
    }
}
