import CSimulator

extension Device {
    /// Entries of the port's GID table.
    var gidCount: Int { options.isRoCE ? 4 : 1 }

    /// A GID, in network byte order: link-local, from this device's GUID; for RoCE also IPv4-mapped. An iWARP port's
    /// GID is its MAC address and zeros.
    func gid(_ index: Int) -> (UInt64, UInt64) {
        if options.isIWARP { return gid(ofAdapter: lid) }
        if options.isRoCE && index >= 2 { return (0, (Device.firstAddress + UInt64(lid)).bigEndian) }
        return (Device.linkLocal.bigEndian, guid.bigEndian)
    }

    /// The GID of an iWARP port: its MAC address.
    func gid(ofAdapter lid: UInt16) -> (UInt64, UInt64) {
        (((Device.firstMACAddress + UInt64(lid)) << 16).bigEndian, 0)
    }

    /// ::ffff:198.18.0.0: from the address block for benchmark tests (RFC 2544).
    static let firstAddress: UInt64 = 0x0000_FFFF_C612_0000
    static let linkLocal: UInt64 = 0xFE80_0000_0000_0000
    static let firstGUID: UInt64 = 0x0002_C903_0000_0100
    /// 00:07:43, Chelsio's OUI.
    private static let firstMACAddress: UInt64 = 0x0007_4310_0000

    /// The LID of the port with this GID; 0: none.
    func port(ofGID gid: (UInt64, UInt64)) -> UInt16 {
        let low = UInt64(bigEndian: gid.1)
        let distance: UInt64
        switch UInt64(bigEndian: gid.0) {
        case 0 where options.isRoCE: distance = low &- Device.firstAddress
        case Device.linkLocal: distance = low &- Device.firstGUID &+ 1
        default: return 0
        }
        return UInt16(exactly: distance) ?? 0
    }

    /// The LID of the port with this address; 0: none.
    func port(of address: ib_uverbs_qp_dest) -> UInt16 {
        options.isRoCE ? port(ofGID: gidHalves(address.dgid)) : address.dlid
    }

    func port(of destination: Destination) -> UInt16 {
        options.isRoCE ? port(ofGID: destination.gid) : destination.lid
    }

    /// The type of a GID: 0 IB, 1 RoCE v1, 2 RoCE v2.
    func gidType(_ index: Int) -> UInt32 { options.isRoCE ? (index & 1 == 0 ? 1 : 2) : 0 }

    /// Node GUID. That of an iWARP device is the modified EUI-64 of its MAC address.
    var guid: UInt64 {
        guard options.isIWARP else { return Device.firstGUID + UInt64(lid) - 1 }
        let address = Device.firstMACAddress + UInt64(lid)
        return ((address >> 24) << 40 | 0xFF_FE00_0000 | address & 0xFF_FFFF) ^ 0x0200_0000_0000_0000
    }

    /// QUERY_PORT.
    func queryPort(_ port: UInt64) throws(Refusal) -> ib_uverbs_query_port_resp {
        try demand(port == 1, EINVAL, "there is no such port", has: Int(truncatingIfNeeded: port))
        var response = ib_uverbs_query_port_resp()
        response.max_msg_sz = UInt32(Device.longestMessage)
        response.gid_tbl_len = UInt32(gidCount)
        response.pkey_tbl_len = 1
        response.lid = options.isEthernet ? 0 : lid
        response.sm_lid = options.isEthernet ? 0 : 1
        response.state = UInt8(IBV_PORT_ACTIVE.rawValue)
        response.max_mtu = UInt8(IBV_MTU_4096.rawValue)
        response.active_mtu = UInt8(IBV_MTU_4096.rawValue)
        response.max_vl_num = 1
        // Four lanes of EDR; the link is up.
        response.active_width = 2
        response.active_speed = 32
        response.phys_state = 5
        response.link_layer = UInt8(options.isEthernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND)
        if options.isRoCE { response.flags = UInt8(IB_UVERBS_QPF_GRH_REQUIRED.rawValue) }
        return response
    }

    /// An entry of the GID table, as QUERY_GID_ENTRY returns it.
    func gidEntry(_ index: Int) -> ib_uverbs_gid_entry {
        var entry = ib_uverbs_gid_entry()
        let gid = gid(index)
        entry.gid = (gid.0, gid.1)
        entry.gid_index = UInt32(index)
        entry.port_num = 1
        entry.gid_type = gidType(index)
        return entry
    }

    /// QUERY_DEVICE.
    func queryDevice() -> ib_uverbs_query_device_resp {
        let identity = codec.identity
        var response = ib_uverbs_query_device_resp()
        response.fw_ver = identity.firmware.number
        response.node_guid = guid.bigEndian
        response.sys_image_guid = guid.bigEndian
        response.max_mr_size = .max
        response.page_size_cap = 0xFFFF_F000
        response.vendor_id = identity.company
        response.vendor_part_id = identity.pciDevice
        response.max_qp = identity.maximumQueuePairs
        response.max_qp_wr = identity.maximumRequests
        response.device_cap_flags = identity.capabilities
        response.max_sge = identity.maximumSGEs
        response.max_sge_rd = identity.maximumReadSGEs
        response.max_cq = 1 << 16
        response.max_cqe = identity.maximumCompletions
        response.max_mr = 1 << 20
        response.max_pd = 1 << 16
        response.max_qp_rd_atom = identity.maxReadAtomic
        response.max_res_rd_atom = identity.maxReadAtomic &* identity.maximumQueuePairs
        response.max_qp_init_rd_atom = identity.maxReadAtomic
        response.max_mw = options.vendor == .mlx5 || options.hasWindows ? 1 << 20 : 0
        if !options.isIWARP {
            response.atomic_cap = IBV_ATOMIC_HCA.rawValue
            response.max_mcast_grp = 1 << 10
            response.max_mcast_qp_attach = 64
            response.max_total_mcast_qp_attach = 1 << 16
            response.max_ah = 1 << 16
        }
        response.max_srq = 1 << 16
        response.max_srq_wr = identity.maximumSharedRequests
        response.max_srq_sge = identity.maximumSharedSGEs
        response.max_pkeys = 1
        response.local_ca_ack_delay = 16
        response.phys_port_cnt = 1
        return response
    }
}

/// A GID's 16 bytes as two words in network byte order.
func gidHalves<Bytes: BitwiseCopyable>(_ bytes: Bytes) -> (UInt64, UInt64) {
    withUnsafeBytes(of: bytes) { ($0.load(0, as: UInt64.self), $0.load(8, as: UInt64.self)) }
}
