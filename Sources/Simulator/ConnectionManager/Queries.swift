import CSimulator

// QUERY_ROUTE and QUERY. The responses are built in bytes, because their socket addresses are of several types.

extension Identifier {
    /// QUERY_ROUTE, for programs that use IP addresses only.
    func queryRoute(_ bytes: UnsafeMutableRawBufferPointer) {
        write(source, bytes, SIM_CM_QUERY_ROUTE_SOURCE)
        write(destination, bytes, SIM_CM_QUERY_ROUTE_DESTINATION)
        guard let device else { return }
        bytes.storeBytes(of: device.guid.bigEndian, as: UInt64.self)
        bytes.storeBytes(of: UInt32(device.index), toByteOffset: SIM_CM_QUERY_ROUTE_INDEX, as: UInt32.self)
        bytes[SIM_CM_QUERY_ROUTE_PORT] = 1
        var record = ib_user_path_rec()
        if let path, !device.isIWARP {
            bytes.storeBytes(of: 1, toByteOffset: SIM_CM_QUERY_ROUTE_COUNT, as: UInt32.self)
            record = ib_user_path_rec(path)
        } else {
            let gids = gids(device)
            setGID(gids.source, &record.sgid)
            setGID(gids.destination, &record.dgid)
            record.pkey = UInt16(0xFFFF).bigEndian
        }
        withUnsafeBytes(of: record) {
            UnsafeMutableRawBufferPointer(rebasing: bytes[8..<(8 + $0.count)]).copyMemory(from: $0)
        }
    }

    /// The GIDs of source and destination (`rdma_read_gids`).
    private func gids(_ device: Device) -> (source: (UInt64, UInt64), destination: (UInt64, UInt64)) {
        if let path { return (path.source, path.destination) }
        if remoteLID == 0 { return (device.options.isRoCE ? source.gid : device.gid(0), destination.gid) }
        // The MAC addresses.
        if device.isIWARP { return (device.gid(0), device.gid(ofAdapter: remoteLID)) }
        return device.options.isRoCE
            ? (device.addressGID, device.addressGID(of: remoteLID))
            : (device.linkLocalGID, device.linkLocalGID(of: remoteLID))
    }

    /// QUERY with RDMA_USER_CM_QUERY_ADDR.
    func queryAddress(_ bytes: UnsafeMutableRawBufferPointer) {
        writeDevice(bytes)
        let size = write(source, bytes, SIM_CM_QUERY_ADDR_SOURCE)
        bytes.storeBytes(of: UInt16(size), toByteOffset: 12, as: UInt16.self)
        let size2 = write(destination, bytes, SIM_CM_QUERY_ADDR_DESTINATION)
        bytes.storeBytes(of: UInt16(size2), toByteOffset: 14, as: UInt16.self)
    }

    /// QUERY with RDMA_USER_CM_QUERY_GID.
    func queryGID(_ bytes: UnsafeMutableRawBufferPointer) {
        writeDevice(bytes)
        var gids: (source: (UInt64, UInt64), destination: (UInt64, UInt64)) = ((0, 0), (0, 0))
        if let device { gids = self.gids(device) }
        let pkey = bytes.loadUnaligned(fromByteOffset: 10, as: UInt16.self)
        let size = write(ibAddress(source, gids.source, pkey), bytes, SIM_CM_QUERY_ADDR_SOURCE)
        bytes.storeBytes(of: UInt16(size), toByteOffset: 12, as: UInt16.self)
        let size2 = write(ibAddress(destination, gids.destination, pkey), bytes, SIM_CM_QUERY_ADDR_DESTINATION)
        bytes.storeBytes(of: UInt16(size2), toByteOffset: 14, as: UInt16.self)
    }

    /// An address as `struct sockaddr_ib`.
    private func ibAddress(_ address: sim_cm_address, _ gid: (UInt64, UInt64), _ pkey: UInt16) -> sim_cm_address {
        if address.family == Family.ib { return address }
        var result = sim_cm_address()
        result.family = Family.ib
        result.pkey = pkey
        result.address = gid
        result.service = UInt64(space) << 16 | UInt64(address.port)
        return result
    }

    /// QUERY with RDMA_USER_CM_QUERY_PATH. Returns the number of bytes written.
    func queryPath(_ bytes: UnsafeMutableRawBufferPointer) -> Int {
        guard let path else { return 8 }
        bytes.storeBytes(of: 1, as: UInt32.self)
        let size = MemoryLayout<ib_path_rec_data>.size
        guard bytes.count >= 8 + size else { return 8 }
        let flags = UInt32(IB_PATH_GMP) | UInt32(IB_PATH_PRIMARY) | UInt32(IB_PATH_BIDIRECTIONAL)
        bytes.storeBytes(of: flags, toByteOffset: 8, as: UInt32.self)
        path.write(bytes.baseAddress! + 16)
        return 8 + size
    }

    /// The first fields of `struct rdma_ucm_query_addr_resp`.
    private func writeDevice(_ bytes: UnsafeMutableRawBufferPointer) {
        guard let device else { return }
        bytes.storeBytes(of: device.guid.bigEndian, as: UInt64.self)
        bytes[8] = 1
        // The P_Key of an Ethernet interface is 0.
        let pkey: UInt16 = device.options.isRoCE && !source.isLoopback || device.isIWARP ? 0 : 0xFFFF
        bytes.storeBytes(of: pkey.bigEndian, toByteOffset: 10, as: UInt16.self)
        bytes.storeBytes(of: UInt32(device.index), toByteOffset: SIM_CM_QUERY_ADDR_INDEX, as: UInt32.self)
    }

    @discardableResult
    private func write(_ address: sim_cm_address, _ bytes: UnsafeMutableRawBufferPointer, _ offset: Int) -> Int {
        withUnsafePointer(to: address) { sim_cm_write_address($0, bytes.baseAddress! + offset) }
    }
}

extension ib_user_path_rec {
    fileprivate init(_ path: Path) {
        self.init()
        setGID(path.destination, &dgid)
        setGID(path.source, &sgid)
        dlid = path.destinationLID.bigEndian
        slid = path.sourceLID.bigEndian
        flow_label = path.flowLabel.bigEndian
        hop_limit = path.hopLimit
        traffic_class = path.trafficClass
        reversible = 1
        pkey = path.pkey.bigEndian
        sl = path.serviceLevel
        (mtu_selector, rate_selector, packet_life_time_selector) = (2, 2, 2)
        mtu = UInt32(path.mtu)
        rate = path.rate
        packet_life_time = path.lifetime
    }
}
