import CIBVerbs

/// The attributes of a device (`struct ibv_device_attr_ex`, ibv_query_device_ex(3)). A limit of 0 means that the device
/// does not support such objects.
public struct DeviceAttributes: @unchecked Sendable {
    // Unchecked: the struct of verbs.h holds numbers only.

    /// The struct of verbs.h. It also has the fields without a property here, such as the limits of services that no
    /// device offers any more (`max_ee`, `max_rdd`, `max_fmr`, `max_raw_ipv6_qp`, `max_raw_ethy_qp`).
    public let raw: ibv_device_attr_ex

    init(_ raw: ibv_device_attr_ex) { self.raw = raw }
}

extension DeviceAttributes {
    /// Version of the firmware, as text (`ibv_device_attr.fw_ver`).
    public var firmwareVersion: String {
        withUnsafeBytes(of: raw.orig_attr.fw_ver) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    /// Node GUID in host byte order (`ibv_device_attr.node_guid`).
    public var nodeGUID: UInt64 { UInt64(bigEndian: raw.orig_attr.node_guid) }
    /// System image GUID in host byte order (`ibv_device_attr.sys_image_guid`).
    public var systemImageGUID: UInt64 { UInt64(bigEndian: raw.orig_attr.sys_image_guid) }
    /// Largest memory region, in bytes (`ibv_device_attr.max_mr_size`).
    public var maxMemoryRegionSize: UInt64 { raw.orig_attr.max_mr_size }
    /// Page sizes that the device supports: bit n stands for 2^n bytes (`ibv_device_attr.page_size_cap`).
    public var pageSizes: UInt64 { raw.orig_attr.page_size_cap }
    /// IEEE number of the maker (`ibv_device_attr.vendor_id`).
    public var vendorID: UInt32 { raw.orig_attr.vendor_id }
    /// The maker's number for the part (`ibv_device_attr.vendor_part_id`).
    public var vendorPartID: UInt32 { raw.orig_attr.vendor_part_id }
    /// Version of the hardware (`ibv_device_attr.hw_ver`).
    public var hardwareVersion: UInt32 { raw.orig_attr.hw_ver }
    /// The largest number of queue pairs (`ibv_device_attr.max_qp`).
    public var maxQueuePairs: Int { Int(raw.orig_attr.max_qp) }
    /// The largest number of outstanding work requests of one queue (`ibv_device_attr.max_qp_wr`).
    public var maxQPWR: Int { Int(raw.orig_attr.max_qp_wr) }
    /// Capabilities of the device (`ibv_device_attr_ex.device_cap_flags_ex`).
    public var capabilities: Capabilities {
        Capabilities(rawValue: raw.device_cap_flags_ex | UInt64(raw.orig_attr.device_cap_flags))
    }
    /// The largest number of SGEs of one work request (`ibv_device_attr.max_sge`).
    public var maxSGE: Int { Int(raw.orig_attr.max_sge) }
    /// The largest number of SGEs of one RDMA read (`ibv_device_attr.max_sge_rd`).
    public var maxSGERd: Int { Int(raw.orig_attr.max_sge_rd) }
    /// The largest number of completion queues (`ibv_device_attr.max_cq`).
    public var maxCompletionQueues: Int { Int(raw.orig_attr.max_cq) }
    /// The largest number of completions that one completion queue holds (`ibv_device_attr.max_cqe`).
    public var maxCQE: Int { Int(raw.orig_attr.max_cqe) }
    /// The largest number of memory regions (`ibv_device_attr.max_mr`).
    public var maxMemoryRegions: Int { Int(raw.orig_attr.max_mr) }
    /// The largest number of protection domains (`ibv_device_attr.max_pd`).
    public var maxProtectionDomains: Int { Int(raw.orig_attr.max_pd) }
    /// The largest number of outstanding reads and atomics that a queue pair serves as responder
    /// (`ibv_device_attr.max_qp_rd_atom`).
    public var maxQPRdAtom: Int { Int(raw.orig_attr.max_qp_rd_atom) }
    /// The largest number of outstanding reads and atomics that all queue pairs together serve as responders
    /// (`ibv_device_attr.max_res_rd_atom`).
    public var maxResRdAtom: Int { Int(raw.orig_attr.max_res_rd_atom) }
    /// The largest number of reads and atomics that a queue pair has outstanding
    /// (`ibv_device_attr.max_qp_init_rd_atom`).
    public var maxQPInitRdAtom: Int { Int(raw.orig_attr.max_qp_init_rd_atom) }
    /// The scope in which atomic operations are atomic (`ibv_device_attr.atomic_cap`).
    public var atomicCapability: AtomicCapability { AtomicCapability(rawValue: raw.orig_attr.atomic_cap.rawValue) }
    /// The largest number of memory windows (`ibv_device_attr.max_mw`).
    public var maxMemoryWindows: Int { Int(raw.orig_attr.max_mw) }
    /// The largest number of multicast groups (`ibv_device_attr.max_mcast_grp`).
    public var maxMulticastGroups: Int { Int(raw.orig_attr.max_mcast_grp) }
    /// The largest number of queue pairs of one multicast group (`ibv_device_attr.max_mcast_qp_attach`).
    public var maxMulticastAttachments: Int { Int(raw.orig_attr.max_mcast_qp_attach) }
    /// The largest number of queue pairs in all multicast groups together
    /// (`ibv_device_attr.max_total_mcast_qp_attach`).
    public var maxTotalMulticastAttachments: Int { Int(raw.orig_attr.max_total_mcast_qp_attach) }
    /// The largest number of address handles (`ibv_device_attr.max_ah`).
    public var maxAddressHandles: Int { Int(raw.orig_attr.max_ah) }
    /// The largest number of shared receive queues (`ibv_device_attr.max_srq`).
    public var maxSharedReceiveQueues: Int { Int(raw.orig_attr.max_srq) }
    /// The largest number of work requests of one shared receive queue (`ibv_device_attr.max_srq_wr`).
    public var maxSRQWR: Int { Int(raw.orig_attr.max_srq_wr) }
    /// The largest number of SGEs of one work request of a shared receive queue (`ibv_device_attr.max_srq_sge`).
    public var maxSRQSGE: Int { Int(raw.orig_attr.max_srq_sge) }
    /// Length of the P_Key tables (`ibv_device_attr.max_pkeys`).
    public var maxPKeys: Int { Int(raw.orig_attr.max_pkeys) }
    /// The longest time that the device takes to send a response, as the exponent of `LocalACKTimeout`
    /// (`ibv_device_attr.local_ca_ack_delay`).
    public var localAckDelay: UInt8 { raw.orig_attr.local_ca_ack_delay }
    /// Number of ports (`ibv_device_attr_ex.phys_port_cnt_ex`).
    public var portCount: Int {
        raw.phys_port_cnt_ex != 0 ? Int(raw.phys_port_cnt_ex) : Int(raw.orig_attr.phys_port_cnt)
    }
    /// On-demand paging in general (`ibv_odp_caps.general_caps`).
    public var onDemandPaging: OnDemandPaging { OnDemandPaging(rawValue: raw.odp_caps.general_caps) }
    /// Operations of RC queue pairs on memory with on-demand paging (`ibv_odp_caps.per_transport_caps.rc_odp_caps`).
    public var reliableConnectionPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.rc_odp_caps)
    }
    /// The same of UC queue pairs (`ibv_odp_caps.per_transport_caps.uc_odp_caps`).
    public var unreliableConnectionPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.uc_odp_caps)
    }
    /// The same of UD queue pairs (`ibv_odp_caps.per_transport_caps.ud_odp_caps`).
    public var unreliableDatagramPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.ud_odp_caps)
    }
    /// The same of XRC queue pairs (`ibv_device_attr_ex.xrc_odp_caps`).
    public var xrcPaging: OnDemandPagingOperations { OnDemandPagingOperations(rawValue: raw.xrc_odp_caps) }
    /// The valid bits of a completion timestamp; 0 when the device has no timestamps
    /// (`ibv_device_attr_ex.completion_timestamp_mask`).
    public var completionTimestampMask: UInt64 { raw.completion_timestamp_mask }
    /// Frequency of the clock behind completion timestamps, in kHz; 0: not known (`ibv_device_attr_ex.hca_core_clock`).
    public var coreClock: UInt64 { raw.hca_core_clock }
    /// Largest payload of a TCP segmentation offload in bytes; 0: not supported (`ibv_tso_caps.max_tso`).
    public var maxTSOPayload: Int { Int(raw.tso_caps.max_tso) }
    /// Queue pair types that can segment TCP: bit n stands for `QueuePairType` n (`ibv_tso_caps.supported_qpts`; in C
    /// `ibv_is_qpt_supported` tests a bit).
    public var tsoQueuePairTypes: UInt32 { raw.tso_caps.supported_qpts }
    /// Queue pair types that can distribute received packets by a hash (RSS): bit n stands for `QueuePairType` n
    /// (`ibv_rss_caps.supported_qpts`).
    public var hashingQueuePairTypes: UInt32 { raw.rss_caps.supported_qpts }
    /// The largest number of indirection tables (`ibv_rss_caps.max_rwq_indirection_tables`).
    public var maxIndirectionTables: Int { Int(raw.rss_caps.max_rwq_indirection_tables) }
    /// The largest number of work queues of one indirection table (`ibv_rss_caps.max_rwq_indirection_table_size`).
    public var maxIndirectionTableSize: Int { Int(raw.rss_caps.max_rwq_indirection_table_size) }
    /// Header fields that a receive hash can use (`ibv_rss_caps.rx_hash_fields_mask`).
    public var hashFields: ReceiveHash.Fields { ReceiveHash.Fields(rawValue: raw.rss_caps.rx_hash_fields_mask) }
    /// Functions for a receive hash (`ibv_rss_caps.rx_hash_function`, enum ibv_rx_hash_function_flags).
    public var hashFunctions: UInt8 { raw.rss_caps.rx_hash_function }
    /// The largest number of receive work queues (`ibv_device_attr_ex.max_wq_type_rq`).
    public var maxWorkQueues: Int { Int(raw.max_wq_type_rq) }
    /// Lowest rate limit of a queue pair, in kbit/s (`ibv_packet_pacing_caps.qp_rate_limit_min`).
    public var minRateLimit: UInt32 { raw.packet_pacing_caps.qp_rate_limit_min }
    /// Highest rate limit of a queue pair, in kbit/s; 0: not supported (`ibv_packet_pacing_caps.qp_rate_limit_max`).
    public var maxRateLimit: UInt32 { raw.packet_pacing_caps.qp_rate_limit_max }
    /// Queue pair types whose rate can be limited: bit n stands for `QueuePairType` n
    /// (`ibv_packet_pacing_caps.supported_qpts`).
    public var rateLimitQueuePairTypes: UInt32 { raw.packet_pacing_caps.supported_qpts }
    /// Capabilities for raw packets (`ibv_device_attr_ex.raw_packet_caps`).
    public var rawPacketCapabilities: RawPacketCapabilities { RawPacketCapabilities(rawValue: raw.raw_packet_caps) }
    /// Limits of tag matching (`ibv_device_attr_ex.tm_caps`).
    public var tagMatching: TagMatching { TagMatching(raw.tm_caps) }
    /// The largest number of completions per event (`ibv_cq_moderation_caps.max_cq_count`).
    public var maxModerationCount: UInt16 { raw.cq_mod_caps.max_cq_count }
    /// The longest delay of an event, in microseconds (`ibv_cq_moderation_caps.max_cq_period`).
    public var maxModerationPeriod: UInt16 { raw.cq_mod_caps.max_cq_period }
    /// Device memory that can be allocated, in bytes (`ibv_device_attr_ex.max_dm_size`).
    public var maxDeviceMemory: UInt64 { raw.max_dm_size }
    /// Sizes of fetch-and-add on PCIe: bit n stands for 4 times 2^n bytes (`ibv_pci_atomic_caps.fetch_add`;
    /// `IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP`, `IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP`,
    /// `IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP`).
    public var busFetchAndAddSizes: UInt16 { raw.pci_atomic_caps.fetch_add }
    /// Sizes of swap on PCIe, in the same form (`ibv_pci_atomic_caps.swap`).
    public var busSwapSizes: UInt16 { raw.pci_atomic_caps.swap }
    /// Sizes of compare-and-swap on PCIe, in the same form (`ibv_pci_atomic_caps.compare_swap`).
    public var busCompareAndSwapSizes: UInt16 { raw.pci_atomic_caps.compare_swap }
}
