import CSimulator

// Addresses and routes (`rdma_resolve_addr`, `rdma_resolve_route` of the kernel). The results are known at once, so the
// events are raised within the command.

extension ConnectionManager {
    /// RESOLVE_IP, RESOLVE_ADDR.
    func resolve(
        _ identifier: Identifier, from source: sim_cm_address?, to destination: sim_cm_address
    ) throws(Refusal) {
        if identifier.state != .addressBound {
            var any = sim_cm_address.any(destination.family)
            any.scope = destination.family == Family.ip6 ? destination.scope : 0
            any.pkey = destination.pkey
            try bind(identifier, to: source ?? any, destination: destination, claims: false)
        }
        try demand(
            identifier.source.family == destination.family, EINVAL, "source and destination are of two families")
        identifier.destination = destination
        if destination.isWildcard {
            try resolveLoopback(identifier)
        } else if let status = try resolveRemote(identifier) {
            return raise(.addressError, identifier, EventContents(status: -status))
        }
        identifier.state = .addressResolved
        raise(.addressResolved, identifier)
    }

    /// A loopback address: every process on the wire is reached by it, as on one host. The port decides which; without
    /// a listener, this process is.
    private func resolveLoopback(_ identifier: Identifier) throws(Refusal) {
        if identifier.device == nil {
            guard let device = devices.first(where: { $0?.isDead == false }) ?? nil else {
                throw Refusal(ENODEV, "there is no device")
            }
            try attach(identifier, device)
            identifier.source = identifier.source.loopback
        }
        let device = identifier.device!
        let port = identifier.destination.port
        identifier.remoteLID = device.lid
        for other in identifiers {
            guard let other, other.state == .listen, other.boundSpace == identifier.boundSpace,
                other.source.port == port
            else { continue }
            if let owner = other.device { identifier.remoteLID = owner.lid }
            return
        }
        if let owner = device.wire?.owner(identifier.boundSpace, port), owner != 0 { identifier.remoteLID = owner }
    }

    /// An address of the wire's network. Returns the errno value of the event that reports the failure.
    private func resolveRemote(_ identifier: Identifier) throws(Refusal) -> Int32? {
        let destination = identifier.destination
        if identifier.device == nil {
            guard
                let device = devices.first(where: {
                    $0?.isDead == false && $0?.lid(of: destination) ?? 0 != 0
                }) ?? nil
            else {
                // For AF_IB the kernel refuses the command itself.
                try demand(destination.family != Family.ib, ENODEV, "no device has a path to this GID")
                return ENODEV
            }
            try attach(identifier, device)
            identifier.source.address =
                destination.family == Family.ip4 ? device.addressGID : device.linkLocalGID
        }
        let lid = identifier.device!.lid(of: destination)
        if lid == 0 { return ENETUNREACH }
        // There is no answer to the ARP request.
        if !identifier.device!.canReach(lid) { return ETIMEDOUT }
        identifier.remoteLID = lid
        return nil
    }

    /// RESOLVE_ROUTE.
    func resolveRoute(_ identifier: Identifier, timeout: UInt32) throws(Refusal) {
        try demand(timeout != 0, EINVAL, "a timeout of 0")
        try demand(identifier.state == .addressResolved, EINVAL, "the address is not resolved")
        if !identifier.device!.isIWARP { identifier.path = makePath(identifier, identifier.device!) }
        identifier.state = .routeResolved
        raise(.routeResolved, identifier)
    }

    private func makePath(_ identifier: Identifier, _ device: Device) -> Path {
        var path = Path()
        path.mtu = UInt8(IBV_MTU_4096.rawValue)
        if let timeout = identifier.timeout, timeout > 0, device.options.isRoCE { path.lifetime = timeout - 1 }
        guard device.options.isRoCE else {
            (path.source, path.destination) = (device.linkLocalGID, device.linkLocalGID(of: identifier.remoteLID))
            (path.sourceLID, path.destinationLID) = (device.lid, identifier.remoteLID)
            path.rate = UInt8(IBV_RATE_100_GBPS.rawValue)
            return path
        }
        if identifier.destination.isLinkLocal {
            (path.source, path.destination) = (device.linkLocalGID, device.linkLocalGID(of: identifier.remoteLID))
        } else {
            (path.source, path.destination) = (device.addressGID, device.addressGID(of: identifier.remoteLID))
        }
        path.hopLimit = 64
        path.trafficClass = identifier.typeOfService
        path.flowLabel =
            (UInt32(identifier.source.port) &* 31 &+ UInt32(identifier.destination.port)) & 0xF_FFFF
        return path
    }

    /// SET_OPTION RDMA_OPTION_IB_PATH: the program has resolved the route itself.
    func setPath(_ identifier: Identifier, _ records: UnsafeRawBufferPointer) throws(Refusal) {
        let size = MemoryLayout<ib_path_rec_data>.size
        try demand(
            records.count % size == 0, EINVAL, "no whole number of path records, in bytes", has: records.count,
            wants: size)
        let wanted = UInt32(IB_PATH_GMP) | UInt32(IB_PATH_PRIMARY) | UInt32(IB_PATH_BIDIRECTIONAL)
        for offset in stride(from: 0, to: records.count, by: size)
        where records.load(offset, as: UInt32.self) == wanted {
            guard let device = identifier.device else { throw Refusal(EINVAL, "the identifier has no device") }
            try demand(identifier.state == .addressResolved, EINVAL, "the address is not resolved")
            identifier.path = Path(UnsafeRawBufferPointer(rebasing: records[(offset + 8)..<(offset + size)]))
            if let path = identifier.path, !device.options.isRoCE {
                let lid = device.port(ofGID: path.destination)
                identifier.remoteLID = lid != 0 ? lid : path.destinationLID
            }
            identifier.state = .routeResolved
            return raise(.routeResolved, identifier)
        }
        throw Refusal(EINVAL, "no path record is a primary path in both directions")
    }
}

extension Path {
    /// A path record of IBTA 15.2.5.16, in 64 bytes.
    init(_ record: UnsafeRawBufferPointer) {
        destination = (record.load(8, as: UInt64.self), record.load(16, as: UInt64.self))
        source = (record.load(24, as: UInt64.self), record.load(32, as: UInt64.self))
        destinationLID = UInt16(bigEndian: record.load(40, as: UInt16.self))
        sourceLID = UInt16(bigEndian: record.load(42, as: UInt16.self))
        let flow = UInt32(bigEndian: record.load(44, as: UInt32.self))
        (flowLabel, hopLimit) = (flow >> 8 & 0xF_FFFF, UInt8(truncatingIfNeeded: flow))
        trafficClass = record[48]
        pkey = UInt16(bigEndian: record.load(50, as: UInt16.self))
        serviceLevel = record[53] & 15
        (mtu, rate, lifetime) = (record[54] & 63, record[55] & 63, record[56] & 31)
    }

    /// Writes the record to 64 bytes, which are 0.
    func write(_ record: UnsafeMutableRawPointer) {
        record.storeBytes(of: destination.0, toByteOffset: 8, as: UInt64.self)
        record.storeBytes(of: destination.1, toByteOffset: 16, as: UInt64.self)
        record.storeBytes(of: source.0, toByteOffset: 24, as: UInt64.self)
        record.storeBytes(of: source.1, toByteOffset: 32, as: UInt64.self)
        record.storeBytes(of: destinationLID.bigEndian, toByteOffset: 40, as: UInt16.self)
        record.storeBytes(of: sourceLID.bigEndian, toByteOffset: 42, as: UInt16.self)
        record.storeBytes(of: (flowLabel << 8 | UInt32(hopLimit)).bigEndian, toByteOffset: 44, as: UInt32.self)
        record.storeBytes(of: trafficClass, toByteOffset: 48, as: UInt8.self)
        // Reversible; the number of paths is 0, as the kernel leaves it.
        record.storeBytes(of: 0x80, toByteOffset: 49, as: UInt8.self)
        record.storeBytes(of: pkey.bigEndian, toByteOffset: 50, as: UInt16.self)
        record.storeBytes(of: serviceLevel, toByteOffset: 53, as: UInt8.self)
        // The selectors say "exactly".
        record.storeBytes(of: 0x80 | mtu, toByteOffset: 54, as: UInt8.self)
        record.storeBytes(of: 0x80 | rate, toByteOffset: 55, as: UInt8.self)
        record.storeBytes(of: 0x80 | lifetime, toByteOffset: 56, as: UInt8.self)
    }

    /// The address of this side's queue pair (`ib_uverbs_ah_attr`).
    func addressAttributes(_ device: Device) -> ib_uverbs_ah_attr {
        var attributes = ib_uverbs_ah_attr()
        attributes.port_num = 1
        attributes.sl = serviceLevel
        attributes.static_rate = device.options.isRoCE ? 0 : rate
        guard device.options.isRoCE else {
            attributes.dlid = destinationLID
            return attributes
        }
        attributes.is_global = 1
        setGID(destination, &attributes.grh.dgid)
        attributes.grh.flow_label = flowLabel
        attributes.grh.hop_limit = hopLimit
        attributes.grh.traffic_class = trafficClass
        attributes.grh.sgid_index = device.gidIndex(of: source)
        return attributes
    }
}

/// Stores a GID, in network byte order, in 16 bytes.
func setGID<Bytes: BitwiseCopyable>(_ gid: (UInt64, UInt64), _ bytes: inout Bytes) {
    withUnsafeMutableBytes(of: &bytes) {
        $0.storeBytes(of: gid.0, as: UInt64.self)
        $0.storeBytes(of: gid.1, toByteOffset: 8, as: UInt64.self)
    }
}

extension Device {
    /// The index of a GID of the type that rdma_cm prefers: RoCE v2.
    func gidIndex(of wanted: (UInt64, UInt64)) -> UInt8 {
        var index = gidCount - 1
        while index > 0 && gid(index) != wanted { index -= 1 }
        return UInt8(index)
    }
}
