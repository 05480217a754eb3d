import CIBVerbs
import CLinux
import CPackage
import CProviderABI
import ProviderKit
import RoCETransport

/// Copies a struct to a caller whose version of it may be shorter or longer: the bytes that fit are copied, the rest is
/// zeroed.
func store<Value>(_ value: Value, to target: UnsafeMutableRawPointer, size: Int) {
    withUnsafeBytes(of: value) { bytes in
        let known = min(size, bytes.count)
        target.copyMemory(from: bytes.baseAddress!, byteCount: known)
        (target + known).initializeMemory(as: UInt8.self, repeating: 0, count: size - known)
    }
}

func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    guard let context, let attr, size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    var answer = ibv_device_attr_ex()
    fill(&answer.orig_attr, context.soft.pointee.interface)
    // No memory is made persistent.
    answer.device_cap_flags_ex =
        UInt64(answer.orig_attr.device_cap_flags) | PlacementCapability.atomicWrite | PlacementCapability.flushGlobal
    answer.phys_port_cnt_ex = 1
    fillOnDemand(&answer.odp_caps)
    answer.xrc_odp_caps = answer.odp_caps.per_transport_caps.rc_odp_caps
    answer.max_dm_size = UInt64(DeviceLimits.deviceMemoryBytes)
    answer.completion_timestamp_mask = UInt64.max
    answer.hca_core_clock = DeviceLimits.coreClock
    answer.packet_pacing_caps.qp_rate_limit_min = 1
    answer.packet_pacing_caps.qp_rate_limit_max = Limits.maxRateLimit
    answer.packet_pacing_caps.supported_qpts =
        1 << IBV_QPT_RC.rawValue | 1 << IBV_QPT_UC.rawValue | 1 << IBV_QPT_UD.rawValue
        | 1 << IBV_QPT_XRC_SEND.rawValue
    answer.cq_mod_caps.max_cq_count = UInt16.max
    answer.cq_mod_caps.max_cq_period = UInt16.max
    store(answer, to: attr, size: size)
    return 0
}

/// On-demand paging: every operation may use it, since the processor accesses the memory.
private func fillOnDemand(_ caps: inout ibv_odp_caps) {
    caps.general_caps = UInt64(IBV_ODP_SUPPORT.rawValue | IBV_ODP_SUPPORT_IMPLICIT.rawValue)
    let datagram = IBV_ODP_SUPPORT_SEND.rawValue | IBV_ODP_SUPPORT_RECV.rawValue | IBV_ODP_SUPPORT_SRQ_RECV.rawValue
    caps.per_transport_caps.ud_odp_caps = datagram
    caps.per_transport_caps.uc_odp_caps = datagram | IBV_ODP_SUPPORT_WRITE.rawValue
    caps.per_transport_caps.rc_odp_caps =
        datagram | IBV_ODP_SUPPORT_WRITE.rawValue | IBV_ODP_SUPPORT_READ.rawValue | IBV_ODP_SUPPORT_ATOMIC.rawValue
}

/// `ibv_query_rt_values_ex`: the clock of completion timestamps now, CLOCK_MONOTONIC, in seconds and nanoseconds.
func queryRealTimeValues(
    context: UnsafeMutablePointer<ibv_context>?, values: UnsafeMutablePointer<ibv_values_ex>?
) -> Int32 {
    guard context != nil, let values else { return EINVAL }
    guard values.pointee.comp_mask & ~IBV_VALUES_MASK_RAW_CLOCK.rawValue == 0 else {
        return refusal(EOPNOTSUPP, "comp_mask has bits other than IBV_VALUES_MASK_RAW_CLOCK")
    }
    if values.pointee.comp_mask == 0 { return 0 }
    let now = linux_monotonic_ns()
    values.pointee.raw_clock.tv_sec = Int(now / 1_000_000_000)
    values.pointee.raw_clock.tv_nsec = Int(now % 1_000_000_000)
    return 0
}

private func fill(_ attr: inout ibv_device_attr, _ interface: linux_interface) {
    attr.node_guid = nodeGUID(of: interface)
    attr.sys_image_guid = attr.node_guid
    // No vendor's OUI, as the kernel's rxe has it; 0 would be one.
    attr.vendor_id = 0xFF_FFFF
    attr.max_mr_size = DeviceLimits.memoryRegionBytes
    // Memory is accessed through the addresses of the process, so every page size is supported.
    attr.page_size_cap = UInt64.max << 12
    attr.max_qp = Int32(DeviceLimits.queuePairs)
    attr.max_qp_wr = Int32(Limits.maxWR)
    attr.device_cap_flags =
        IBV_DEVICE_CURR_QP_STATE_MOD.rawValue | IBV_DEVICE_RC_RNR_NAK_GEN.rawValue
        | IBV_DEVICE_SYS_IMAGE_GUID.rawValue | IBV_DEVICE_AUTO_PATH_MIG.rawValue | IBV_DEVICE_SRQ_RESIZE.rawValue
        | IBV_DEVICE_MEM_WINDOW.rawValue | IBV_DEVICE_MEM_WINDOW_TYPE_2B.rawValue
        | IBV_DEVICE_XRC.rawValue
    attr.max_sge = Int32(Limits.maxSGE)
    attr.max_sge_rd = Int32(Limits.maxSGE)
    attr.max_cq = Int32(DeviceLimits.completionQueues)
    attr.max_cqe = Int32(Limits.maxCQE)
    // Memory regions and windows share the keys.
    attr.max_mr = Int32(Limits.maxMR)
    attr.max_mw = Int32(Limits.maxMR)
    attr.max_pd = Int32(DeviceLimits.protectionDomains)
    attr.max_qp_rd_atom = Int32(Limits.maxReadAtomic)
    attr.max_qp_init_rd_atom = Int32(Limits.maxReadAtomic)
    attr.max_res_rd_atom = Int32(Limits.maxReadAtomic) * Int32(DeviceLimits.queuePairs)
    // Atomics use the atomic instructions of the processor, so they are atomic with respect to it as well
    // (IBV_ATOMIC_GLOB).
    attr.atomic_cap = IBV_ATOMIC_GLOB
    attr.max_mcast_grp = Int32(DeviceLimits.multicastGroups)
    attr.max_mcast_qp_attach = Int32(DeviceLimits.queuePairs)
    attr.max_total_mcast_qp_attach = Int32(Limits.maxMulticastAttachments)
    attr.max_ah = Int32(DeviceLimits.addressHandles)
    attr.max_srq = Int32(DeviceLimits.sharedReceiveQueues)
    attr.max_srq_wr = Int32(Limits.maxWR)
    attr.max_srq_sge = Int32(Limits.maxSGE)
    attr.max_pkeys = 1
    attr.phys_port_cnt = 1
    withUnsafeMutableBytes(of: &attr.fw_ver) { bytes in
        // The last byte stays 0.
        guard let text = rdma_package_version() else { return }
        for index in 0..<bytes.count - 1 {
            guard text[index] != 0 else { break }
            bytes[index] = UInt8(bitPattern: text[index])
        }
    }
}
