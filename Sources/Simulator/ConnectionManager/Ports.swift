import CSimulator

// Binding: port spaces and addresses (`rdma_bind_addr`, `rdma_listen` of the kernel).

extension ConnectionManager {
    /// Binds an identifier to an address and a port.
    ///
    /// - Parameter claims: Whether to allocate the port of a wildcard address among all processes on the wire. RESOLVE
    ///   does not: nothing can connect to its port.
    func bind(
        _ identifier: Identifier, to address: sim_cm_address, destination: sim_cm_address? = nil, claims: Bool = true
    ) throws(Refusal) {
        try demand(identifier.state == .idle, EINVAL, "the identifier is bound already")
        try demand(
            !address.isLinkLocal || address.scope != 0, EINVAL, "a link-local address needs the number of an interface")
        identifier.source = address
        if !address.isWildcard { try attach(identifier, try device(of: address)) }
        if !identifier.hasFamilyOption && address.family == Family.ip4 { identifier.isFamilyOnly = true }
        if let destination { identifier.destination = destination }
        do throws(Refusal) {
            try bindPort(identifier, claims: claims)
        } catch {
            if let device = identifier.device {
                identifier.device = nil
                device.closeIfUnused()
            }
            throw error
        }
        identifier.state = .addressBound
    }

    /// LISTEN.
    func listen(_ identifier: Identifier, backlog: UInt32) throws(Refusal) {
        identifier.backlog = Int(backlog == 0 || backlog > Self.longestBacklog ? Self.longestBacklog : backlog)
        if identifier.state != .addressBound { try bind(identifier, to: .any(Family.ip4)) }
        if identifier.reusesAddress {
            try checkPort(identifier, space: identifier.boundSpace, reuse: false)
            identifier.reusesAddress = false
        }
        if identifier.device != nil {
            identifier.communication = .listen
        } else {
            for device in devices {
                try device?.wire?.open()
                device?.startRunning()
            }
        }
        identifier.state = .listen
        guard identifier.isClaimed else { return }
        for device in devices { device?.wire?.showListener(identifier.boundSpace, identifier.source.port) }
    }

    /// `net.rdma_ucm.max_backlog`.
    private static let longestBacklog: UInt32 = 1024
    /// `net.ipv4.ip_local_port_range`.
    private static let firstPort: UInt16 = 32_768
    private static let lastAllocatable: UInt16 = 60_999

    /// The port space in which an identifier's port is allocated (`cma_select_inet_ps`, `cma_select_ib_ps`).
    private func space(for identifier: Identifier) throws(Refusal) -> UInt16 {
        guard identifier.source.family == Family.ib else { return identifier.space }
        let mask = identifier.source.service_mask & ~0xFFFF
        let service = identifier.source.service & mask
        for space in [PortSpace.ib, PortSpace.tcp, PortSpace.udp] {
            guard identifier.space == PortSpace.ib || identifier.space == space, service == UInt64(space) << 16 & mask
            else { continue }
            setService(of: identifier, space)
            return space
        }
        throw Refusal(EPROTONOSUPPORT, "the service ID is of another port space than the identifier")
    }

    /// Not inlined: for the inlined function, the compiler chooses between two orders of instructions, and two builds differ.
    @inline(never)
    private func setService(of identifier: Identifier, _ space: UInt16) {
        identifier.source.service = UInt64(space) << 16 | UInt64(identifier.source.port)
        identifier.source.service_mask |= ~0xFFFF
    }

    private func bindPort(_ identifier: Identifier, claims: Bool) throws(Refusal) {
        let space = try space(for: identifier)
        let claims = claims && identifier.source.isWildcard
        if identifier.source.port == 0 {
            try allocatePort(identifier, space, claims: claims)
        } else {
            try checkPort(identifier, space: space, reuse: identifier.reusesAddress)
            if claims { try claim(identifier, space) }
        }
        identifier.boundSpace = space
    }

    private func allocatePort(_ identifier: Identifier, _ space: UInt16, claims: Bool) throws(Refusal) {
        for _ in Self.firstPort...Self.lastAllocatable {
            lastPort =
                lastPort < Self.firstPort || lastPort >= Self.lastAllocatable ? Self.firstPort : lastPort + 1
            if isUsed(lastPort, space) { continue }
            identifier.source.set(port: lastPort)
            if !claims { return }
            do throws(Refusal) { return try claim(identifier, space) } catch {
                if error.errno != EADDRNOTAVAIL { throw error }
            }
        }
        throw Refusal(EADDRNOTAVAIL, "every port is in use")
    }

    private func isUsed(_ port: UInt16, _ space: UInt16) -> Bool {
        for other in identifiers {
            if let other, other.boundSpace == space, other.source.port == port { return true }
        }
        return false
    }

    /// `cma_check_port`: whether the identifier may have its port beside the others.
    private func checkPort(_ identifier: Identifier, space: UInt16, reuse: Bool) throws(Refusal) {
        let address = identifier.source
        for other in identifiers {
            guard let other, other !== identifier, other.boundSpace == space, other.source.port == address.port else {
                continue
            }
            if reuse && other.reusesAddress { continue }
            if identifier.isFamilyOnly && other.isFamilyOnly && address.family != other.source.family { continue }
            try demand(
                !address.isWildcard && !other.source.isWildcard, EADDRNOTAVAIL,
                "the port is in use, and one of the two is bound to all addresses", has: Int(address.port))
            try demand(
                !address.isSameHost(as: other.source), EADDRINUSE, "the address and port are in use",
                has: Int(address.port))
        }
    }

    // MARK: - Ports that all processes on the wire share

    private func claim(_ identifier: Identifier, _ space: UInt16) throws(Refusal) {
        for device in devices {
            guard let device, let wire = device.wire else { continue }
            // The others recognize the owner by its open port.
            try wire.open()
            let error = wire.claim(space, identifier.source.port)
            guard error != 0 else { continue }
            device.closeIfUnused()
            throw Refusal(
                error == EADDRINUSE ? EADDRNOTAVAIL : error, "another process on the wire has the port",
                has: Int(identifier.source.port))
        }
        identifier.isClaimed = true
    }

    func releasePort(_ identifier: Identifier) {
        let (space, port) = (identifier.boundSpace, identifier.source.port)
        identifier.boundSpace = 0
        guard identifier.isClaimed else { return }
        identifier.isClaimed = false
        for other in identifiers {
            if let other, other.isClaimed, other.boundSpace == space, other.source.port == port { return }
        }
        for device in devices { device?.wire?.release(space, port) }
    }

    // MARK: - Listeners

    /// The listener for a request that arrives at a device; nil: none. `isRegistered`: whether one listens for the
    /// service ID, be it at another address.
    func listener(for message: sim_cm_message, _ device: Device, isRegistered: inout Bool) -> Identifier? {
        let space = UInt16(truncatingIfNeeded: message.service >> 16)
        let port = UInt16(truncatingIfNeeded: message.service)
        for identifier in identifiers {
            guard let identifier, identifier.state == .listen, identifier.boundSpace == space,
                identifier.source.port == port, identifier.device == nil || identifier.device === device
            else { continue }
            isRegistered = true
            if identifier.accepts(message.destination) { return identifier }
        }
        return nil
    }
}

extension Identifier {
    /// `cma_match_private_data`: whether a listener is bound to a request's destination.
    fileprivate func accepts(_ destination: sim_cm_address) -> Bool {
        if destination.family == Family.ib { return source.family == Family.ib }
        if source.isWildcard && (!isFamilyOnly || source.family == destination.family) { return true }
        return source.isSameHost(as: destination)
    }
}
