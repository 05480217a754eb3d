import ArgumentParser
import Glibc
import Verbs

/// The options that select the device and address of this machine.
struct DeviceOptions: ParsableArguments {
    @Option(
        help: """
            The RDMA device; without it, the one through which the peer is reached: a kernel device, or else the software \
            device of the network interface, soft_<interface>.
            """)
    var device: String?

    @Option(help: "The port of the device, from 1.", transform: portArgument)
    var devicePort: UInt8?

    @Option(help: "The index in the port's GID table (see verbs info); without it, the recommended GID.")
    var gidIndex: UInt8?

    @Flag(exclusivity: .exclusive) var family: AddressFamily?

    /// Opens the device that was named, or the one through which the other end of `route` is reached.
    ///
    /// - Parameter linkLayer: The link layer of the peer's port; nil: not known.
    func open(for route: Route?, to linkLayer: LinkLayer? = nil) throws(ToolError) -> Context {
        let named = try device.map { name throws(ToolError) in try Device.chosen(name)[0] }
        do throws(VerbsError) {
            guard let named else { return try Device.openFirst(along: route, to: linkLayer) }
            return try named.open()
        } catch {
            let isNoneUp = named == nil && error.errno == .operationNotSupportedByDevice && route?.isWithinHost != false
            throw isNoneUp ? (try DeviceList.current().isEmpty ? .noDevices : .noActivePort) : ToolError(error)
        }
    }

    /// The first address that matches the options and the peer's family `wanted`; the local address of `route` is
    /// preferred.
    func address(
        of context: Context, for route: Route?, family wanted: AddressFamily? = nil
    ) throws(ToolError) -> PortAddress {
        let family = family ?? wanted
        let addresses: [PortAddress]
        do throws(VerbsError) {
            addresses = try context.addresses()
        } catch {
            throw ToolError(error)
        }
        let matching = addresses.filter { address in
            (devicePort == nil || address.port == devicePort) && (gidIndex == nil || address.gidIndex == gidIndex)
                && (family == nil || address.family == nil || address.family == family)
        }
        guard let fitting = matching.first(where: { $0.gid == route?.local }) ?? matching.first else {
            let criteria = [
                devicePort.map { "port \($0)" }, gidIndex.map { "GID index \($0)" }, family.map { "family \($0)" },
            ].compactMap { $0 }.joined(separator: ", ")
            throw ToolError(
                .noDevice,
                "\(context.deviceName) has no active address" + (criteria.isEmpty ? "" : " with \(criteria)"),
                hint: addresses.isEmpty
                    ? "verbs info \(context.deviceName) shows its ports: one must be active and have a GID"
                    : "it has " + addresses.map(\.description).joined(separator: "; "))
        }
        if let route, !route.isWithinHost, fitting.gid.isLoopback {
            throw .onLoopback(context.deviceName, route)
        }
        return fitting
    }
}

extension GID {
    /// The IP address that the GID maps, as text; nil for a link-local GID, which names no interface.
    var hostAddress: String? {
        if isIPv4Mapped { return String(description.dropFirst("::ffff:".count)) }
        return isLinkLocal ? nil : description
    }
}

extension PortAddress {
    /// The address family of the GID; nil on InfiniBand.
    var family: AddressFamily? {
        linkLayer == .ethernet ? (gid.isIPv4Mapped ? .ipv4 : .ipv6) : nil
    }
}

extension Link {
    /// Creates the queue pairs and their memory; unless rdma_cm will connect them, moves them to INIT and posts their
    /// receives.
    /// Call `connect` next.
    static func make(_ context: Context, at address: PortAddress, _ setup: Setup) throws -> Link {
        try checkMTU(setup, address.mtu)
        let limits = try context.attributes()
        let maxWorkRequests = max(1, limits.maxQPWR)
        // With verification each receive has its own buffer; otherwise all share one.
        let slotCount = setup.verify ? min(max((64 << 20) / slotSize(setup), 2), 16) : 1
        let receiveCount = setup.verify ? slotCount : setup.receiveDepth(limit: maxWorkRequests)
        // A message of the operations `window` and `flush` has two work requests.
        let optional = setup.transport == .rc ? Operation.optional(on: context) : []
        let flushes = optional.contains(.flush)
        let sendCount = min(max(setup.sendDepth * (flushes ? 2 : 1), 2), maxWorkRequests)

        let domain = try context.makeProtectionDomain()
        let local = try setup.memory.makeRegion(domain, byteCount: outgoingSize(setup) + slotCount * slotSize(setup))
        let hasWindows = optional.contains(.window)
        var access: AccessFlags =
            setup.transport.isReliable
            ? [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic] : [.localWrite, .remoteWrite]
        if hasWindows { access.insert(.memoryWindowBind) }
        if flushes { access.insert(.flushGlobal) }
        let exposed = try setup.memory.makeRegion(
            domain, byteCount: writtenRange(setup.largestSize).upperBound + readSlack, access: access)
        // The window limits the send work requests of all queue pairs.
        let outstanding = setup.queuePairs == 1 ? sendCount : setup.window
        let completions = try context.makeCompletionQueue(capacity: outstanding + setup.queuePairs * receiveCount)
        var creation = QueuePair.CreationOptions()
        // verbs.h has these two in ibv_qp_ex only.
        if flushes { creation.extendedOperations.formUnion([.write, .flush]) }
        if optional.contains(.atomicWrite) { creation.extendedOperations.insert(.atomicWrite) }
        var queuePairs = QueuePairs(capacity: setup.queuePairs)
        var endpoints: [Endpoint] = []
        for _ in 0..<setup.queuePairs {
            let queuePair = try domain.makeQueuePair(
                setup.transport.queuePairType, completions: completions,
                capabilities: QueuePair.Capabilities(
                    maxSendWR: UInt32(sendCount), maxReceiveWR: UInt32(receiveCount)), options: creation)
            endpoints.append(try queuePair.endpoint(at: address, memory: exposed.remote))
            if !setup.usesConnectionManager { try queuePair.initialize(options: options(setup, flushes: flushes)) }
            queuePairs.append(queuePair)
        }
        var receiver: ExtendedReceiver?
        if setup.transport == .xrc {
            let side = try ExtendedReceiver(domain, completions, maxWR: receiveCount)
            endpoints.append(try side.queuePair.endpoint(at: address))
            var queue = endpoints[1]
            queue.queuePairNumber = try side.queue.number()
            endpoints.append(queue)
            try side.queuePair.initialize(options: options(setup))
            receiver = side
        }
        var link = Link(
            setup: setup, address: address, endpoint: endpoints[0],
            further: endpoints.dropFirst().map {
                FurtherEndpoint(
                    queuePairNumber: $0.queuePairNumber, packetSequenceNumber: $0.packetSequenceNumber)
            },
            local: local, exposed: exposed, slotCount: slotCount,
            receiveCount: receiveCount, queuePairs: queuePairs, completions: completions,
            workCompletions: WorkCompletionBuffer(capacity: 32), receiver: receiver,
            memoryWindow: hasWindows ? try domain.makeMemoryWindow(.two) : nil, flushes: flushes)
        if !setup.usesConnectionManager { try link.postReceives() }
        return link
    }

    /// Posts all receives of queue pairs in INIT.
    mutating func postReceives() throws(VerbsError) {
        for queuePair in 0..<queuePairs.count {
            for index in 0..<receiveCount {
                try postReceive(slot: ReceiveSlot(queuePair: queuePair, buffer: index % slotCount))
            }
        }
    }

    /// Throws if the device's `max_qp` does not allow so many queue pairs.
    static func checkQueuePairs(_ setup: Setup, on context: Context) throws {
        try checkQueuePairs(setup.queuePairs, limit: context.attributes().maxQueuePairs, context.deviceName)
    }

    /// Throws if `count` queue pairs exceed the device's limit. One is always attempted.
    static func checkQueuePairs(_ count: Int, limit: Int, _ deviceName: String) throws(ToolError) {
        guard count > max(limit, 1) else { return }
        throw ToolError(
            .unsupported, "\(deviceName) has at most \(limit) queue pairs, not \(count)",
            hint: "use --queue-pairs \(limit), or fewer")
    }

    /// Throws if the window exceeds the device's `max_qp_wr`.
    static func checkWindow(_ setup: Setup, on context: Context) throws {
        let limit = try context.attributes().maxQPWR
        guard setup.sendDepth > limit else { return }
        throw ToolError(
            .usage, "the send queue of \(context.deviceName) cannot hold a window of \(setup.window) messages",
            hint: "use a --window of at most \(limit)")
    }

    /// Throws if a UD message exceeds the peer's MTU.
    func checkMTU(of peer: PeerInfo) throws(ToolError) { try Self.checkMTU(setup, peer.endpoint.mtu) }

    private static func checkMTU(_ setup: Setup, _ mtu: MTU) throws(ToolError) {
        guard setup.transport == .ud, setup.largestSize > mtu.byteCount else { return }
        throw ToolError(
            .usage, "a UD message of \(setup.largestSize) bytes exceeds the path MTU of \(mtu.byteCount)",
            hint: "use a smaller --size, or --transport rc")
    }

    /// Connects to the queue pairs of the peer, which has received `endpoint` and `further`. Checks the peer meanwhile.
    mutating func connect(to peers: [Endpoint], _ control: ControlConnection) throws {
        try setRemoteMemory(of: peers[0])
        if setup.transport == .ud {
            try queuePairs[0].pointee.activate()
            destination = try local.protectionDomain.makeDestination(peers[0], from: address)
            return
        }
        let options = Self.options(setup, flushes: flushes)
        if let receiver {
            try queuePairs[0].pointee.connect(to: peers[1], options: options)
            try receiver.queuePair.connect(to: peers[0], options: options)
            remoteSharedReceiveQueue = peers[2].queuePairNumber
            return
        }
        for (index, peer) in peers.enumerated() {
            try queuePairs[index].pointee.connect(to: peer, options: options)
            if index % 64 == 63 { _ = try control.checkPeer(now: Clock.now()) }
        }
    }

    /// Sets the memory that the peer exposes.
    mutating func setRemoteMemory(of peer: Endpoint) throws {
        guard let memory = peer.memory, memory.byteCount >= UInt64(exposed.byteCount) else {
            throw ToolError(
                .cannotConnect, "the peer exposes less memory than agreed",
                hint: "run the same version on both machines")
        }
        remote = memory
    }

    /// The connection options. UC supports neither RDMA reads nor atomics, so the access flags omit them.
    private static func options(_ setup: Setup, flushes: Bool = false) -> ConnectionOptions {
        var options = ConnectionOptions()
        options.timeout = localACKTimeout(lasting: setup.retryTime, tries: UInt64(options.retryCount) + 1)
        if !setup.transport.isReliable { options.access = [.localWrite, .remoteWrite] }
        if flushes { options.access.insert(.flushGlobal) }
        return options
    }

    /// The smallest Local ACK Timeout (`ibv_qp_attr.timeout`: 4.096 us * 2^timeout) with which `tries` transmissions
    /// last for `nanoseconds`. The device waits at least that long (IBTA volume 1, 9.7.6.1.3), so the job's own timeout
    /// expires first. RNR NAKs are retried without limit.
    static func localACKTimeout(lasting nanoseconds: UInt64, tries: UInt64) -> LocalACKTimeout {
        let exponent = (UInt8(14)...31).first { tries * 4096 << UInt64($0) >= nanoseconds }
        return LocalACKTimeout(rawValue: exponent ?? 31)
    }

    /// Initializes the exposed memory for a job.
    func prepare(for job: Job) {
        memset(exposed.unsafeBytes.baseAddress!, 0, Self.writtenRange(job.size).upperBound)
        guard job.operation == .read, job.verify else { return }
        Pattern.fillSource(source(job.size))
    }
}

extension Transport {
    var queuePairType: QueuePairType {
        switch self {
        case .rc: .reliableConnection
        case .uc: .unreliableConnection
        case .ud: .unreliableDatagram
        case .xrc: .xrcSend
        }
    }
}
