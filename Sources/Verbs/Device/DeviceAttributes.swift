import CIBVerbs

/// What a device can do, and how much of it (ibv_query_device_ex(3)). A limit of 0 means that it has none of them.
public struct DeviceAttributes: @unchecked Sendable {
    // Unchecked: the struct of verbs.h holds numbers only.

    /// The struct of verbs.h.
    public let raw: ibv_device_attr_ex

    init(_ raw: ibv_device_attr_ex) { self.raw = raw }
}

extension DeviceAttributes {
    /// Version of the firmware, as text.
    public var firmwareVersion: String {
        withUnsafeBytes(of: raw.orig_attr.fw_ver) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    /// Node GUID in host byte order.
    public var nodeGUID: UInt64 { UInt64(bigEndian: raw.orig_attr.node_guid) }
    /// System image GUID in host byte order.
    public var systemImageGUID: UInt64 { UInt64(bigEndian: raw.orig_attr.sys_image_guid) }
    /// Largest memory region, in bytes.
    public var maxMemoryRegionSize: UInt64 { raw.orig_attr.max_mr_size }
    /// Page sizes that it can use: bit n stands for 2^n bytes.
    public var pageSizes: UInt64 { raw.orig_attr.page_size_cap }
    /// IEEE number of the maker.
    public var vendorID: UInt32 { raw.orig_attr.vendor_id }
    /// The maker's number for the part.
    public var vendorPartID: UInt32 { raw.orig_attr.vendor_part_id }
    /// Version of the hardware.
    public var hardwareVersion: UInt32 { raw.orig_attr.hw_ver }
    /// Most queue pairs.
    public var maxQueuePairs: Int { Int(raw.orig_attr.max_qp) }
    /// Most outstanding work requests of one queue.
    public var maxWorkRequests: Int { Int(raw.orig_attr.max_qp_wr) }
    /// What the device can do.
    public var capabilities: Capabilities {
        Capabilities(rawValue: raw.device_cap_flags_ex | UInt64(raw.orig_attr.device_cap_flags))
    }
    /// Most slices of one work request.
    public var maxSlices: Int { Int(raw.orig_attr.max_sge) }
    /// Most slices of one RDMA read.
    public var maxReadSlices: Int { Int(raw.orig_attr.max_sge_rd) }
    /// Most completion queues.
    public var maxCompletionQueues: Int { Int(raw.orig_attr.max_cq) }
    /// Most completions that one completion queue holds.
    public var maxCompletions: Int { Int(raw.orig_attr.max_cqe) }
    /// Most memory regions.
    public var maxMemoryRegions: Int { Int(raw.orig_attr.max_mr) }
    /// Most protection domains.
    public var maxProtectionDomains: Int { Int(raw.orig_attr.max_pd) }
    /// Most reads and atomics that a queue pair answers at a time.
    public var maxResponderDepth: Int { Int(raw.orig_attr.max_qp_rd_atom) }
    /// Most reads and atomics that all queue pairs together answer at a time.
    public var maxResponderResources: Int { Int(raw.orig_attr.max_res_rd_atom) }
    /// Most reads and atomics that a queue pair has outstanding.
    public var maxInitiatorDepth: Int { Int(raw.orig_attr.max_qp_init_rd_atom) }
    /// How far its atomic operations are atomic.
    public var atomicCapability: AtomicCapability { AtomicCapability(rawValue: raw.orig_attr.atomic_cap.rawValue) }
    /// Most memory windows.
    public var maxMemoryWindows: Int { Int(raw.orig_attr.max_mw) }
    /// Most multicast groups.
    public var maxMulticastGroups: Int { Int(raw.orig_attr.max_mcast_grp) }
    /// Most queue pairs of one multicast group.
    public var maxMulticastAttachments: Int { Int(raw.orig_attr.max_mcast_qp_attach) }
    /// Most queue pairs in all multicast groups together.
    public var maxTotalMulticastAttachments: Int { Int(raw.orig_attr.max_total_mcast_qp_attach) }
    /// Most address handles.
    public var maxAddressHandles: Int { Int(raw.orig_attr.max_ah) }
    /// Most shared receive queues.
    public var maxSharedReceiveQueues: Int { Int(raw.orig_attr.max_srq) }
    /// Most work requests of one shared receive queue.
    public var maxSharedReceiveRequests: Int { Int(raw.orig_attr.max_srq_wr) }
    /// Most slices of one work request of a shared receive queue.
    public var maxSharedReceiveSlices: Int { Int(raw.orig_attr.max_srq_sge) }
    /// Length of the P_Key tables.
    public var maxPKeys: Int { Int(raw.orig_attr.max_pkeys) }
    /// How long the device takes to answer at most: 4.096 us times 2 to this power.
    public var localAckDelay: UInt8 { raw.orig_attr.local_ca_ack_delay }
    /// Number of ports.
    public var portCount: Int {
        raw.phys_port_cnt_ex != 0 ? Int(raw.phys_port_cnt_ex) : Int(raw.orig_attr.phys_port_cnt)
    }
    /// On-demand paging in general.
    public var onDemandPaging: OnDemandPaging { OnDemandPaging(rawValue: raw.odp_caps.general_caps) }
    /// Operations of RC queue pairs on memory that is paged on demand.
    public var reliableConnectionPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.rc_odp_caps)
    }
    /// The same of UC queue pairs.
    public var unreliableConnectionPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.uc_odp_caps)
    }
    /// The same of UD queue pairs.
    public var unreliableDatagramPaging: OnDemandPagingOperations {
        OnDemandPagingOperations(rawValue: raw.odp_caps.per_transport_caps.ud_odp_caps)
    }
    /// The same of XRC queue pairs.
    public var xrcPaging: OnDemandPagingOperations { OnDemandPagingOperations(rawValue: raw.xrc_odp_caps) }
    /// The bits of a completion timestamp that count; 0: it has none.
    public var completionTimestampMask: UInt64 { raw.completion_timestamp_mask }
    /// Frequency of the clock behind completion timestamps, in kHz; 0: not known.
    public var coreClock: UInt64 { raw.hca_core_clock }
    /// Largest payload of a TCP segmentation offload in bytes; 0: it has none.
    public var maxTSOPayload: Int { Int(raw.tso_caps.max_tso) }
    /// Kinds of queue pair that can segment TCP: bit n stands for `QueuePair.Kind` n.
    public var tsoQueuePairKinds: UInt32 { raw.tso_caps.supported_qpts }
    /// Kinds of queue pair that can spread receives by a hash: bit n stands for `QueuePair.Kind` n.
    public var hashingQueuePairKinds: UInt32 { raw.rss_caps.supported_qpts }
    /// Most indirection tables.
    public var maxIndirectionTables: Int { Int(raw.rss_caps.max_rwq_indirection_tables) }
    /// Most work queues of one indirection table.
    public var maxIndirectionTableSize: Int { Int(raw.rss_caps.max_rwq_indirection_table_size) }
    /// Header fields that a receive hash can take.
    public var hashFields: ReceiveHash.Fields { ReceiveHash.Fields(rawValue: raw.rss_caps.rx_hash_fields_mask) }
    /// Functions for a receive hash (enum ibv_rx_hash_function_flags).
    public var hashFunctions: UInt8 { raw.rss_caps.rx_hash_function }
    /// Most receive work queues.
    public var maxWorkQueues: Int { Int(raw.max_wq_type_rq) }
    /// Lowest rate limit of a queue pair, in kbit/s.
    public var minRateLimit: UInt32 { raw.packet_pacing_caps.qp_rate_limit_min }
    /// Highest rate limit of a queue pair, in kbit/s; 0: it has none.
    public var maxRateLimit: UInt32 { raw.packet_pacing_caps.qp_rate_limit_max }
    /// Kinds of queue pair whose rate can be limited: bit n stands for `QueuePair.Kind` n.
    public var rateLimitQueuePairKinds: UInt32 { raw.packet_pacing_caps.supported_qpts }
    /// What it can do with raw packets.
    public var rawPacketCapabilities: RawPacketCapabilities { RawPacketCapabilities(rawValue: raw.raw_packet_caps) }
    /// Limits of tag matching.
    public var tagMatching: TagMatching { TagMatching(raw.tm_caps) }
    /// Most completions that an event can wait for.
    public var maxModerationCount: UInt16 { raw.cq_mod_caps.max_cq_count }
    /// Longest time that an event can wait, in microseconds.
    public var maxModerationPeriod: UInt16 { raw.cq_mod_caps.max_cq_period }
    /// Memory of its own that can be allocated, in bytes.
    public var maxDeviceMemory: UInt64 { raw.max_dm_size }
    /// Sizes of fetch-and-add over the bus: bit n stands for 4 times 2^n bytes.
    public var busFetchAndAddSizes: UInt16 { raw.pci_atomic_caps.fetch_add }
    /// Sizes of swap over the bus, likewise.
    public var busSwapSizes: UInt16 { raw.pci_atomic_caps.swap }
    /// Sizes of compare-and-swap over the bus, likewise.
    public var busCompareAndSwapSizes: UInt16 { raw.pci_atomic_caps.compare_swap }
}
