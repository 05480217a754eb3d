import SystemPackage

/// What this side of a queue pair has told its peer.
struct LocalEnd: Sendable {
    let address: PortAddress
    let endpoint: Endpoint
    /// Most reads and atomics that the device has outstanding on one queue pair.
    let initiatorDepth: UInt8
}

/// How a connection behaves. The defaults suit most.
public struct ConnectionOptions: Sendable {
    /// How long to wait for an answer: 4.096 us times 2 to this power. 14 is 67 ms.
    public var timeout: UInt8 = 14
    /// How often to try again when no answer comes: 0 to 7.
    public var retryCount: UInt8 = 7
    /// How often to try again when the peer has no receive posted: 0 to 6; 7 tries for ever.
    public var rnrRetry: UInt8 = 7
    /// How long the peer waits when no receive is posted here: a code from 0 to 31 (IBTA volume 1, table 45).
    /// 12 is 0.64 ms; 0 is 655 ms, which makes every such wait a thousand times as long.
    public var minRNRTimer: UInt8 = 12
    /// Largest payload of a packet; by default the smaller of the two ports' MTUs.
    public var pathMTU: MTU?
    /// Most reads and atomics that are outstanding from here; by default as many as both sides can.
    public var initiatorDepth: UInt8?
    /// What the peer may do through this queue pair. Its regions' own flags and keys decide as well.
    public var access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic]
    /// Place of the P_Key in the port's table.
    public var pkeyIndex: UInt16 = 0
    /// Service level, 0 to 15.
    public var serviceLevel: UInt8 = 0
    /// Traffic class; on RoCE v2 the DSCP and ECN bits.
    public var trafficClass: UInt8 = 0
    /// Flow label, 20 bits.
    public var flowLabel: UInt32 = 0
    /// How many routers a packet may pass.
    public var hopLimit: UInt8 = 64

    /// The defaults.
    public init() {}
}

extension QueuePair {
    /// This side as the peer must know it, to be sent to it before `connect`.
    ///
    /// The first call chooses the address and a random first packet number; later calls, without an address of
    /// their own, answer with the same.
    ///
    /// - Parameters:
    ///   - address: where the queue pair is reached; by default the best one of `Context.addresses`.
    ///   - memory: memory that the peer may use, such as `region.remote`.
    /// - Throws: `ENETDOWN` when no port is active.
    public func endpoint(at address: PortAddress? = nil, memory: RemoteMemory? = nil) throws(VerbsError) -> Endpoint {
        if address == nil, var known = owner.state.withLock({ $0.local?.endpoint }) {
            known.memory = memory ?? known.memory
            return known
        }
        let chosen: PortAddress
        if let address { chosen = address } else { chosen = try context.address() }
        let isDatagram = kind == .unreliableDatagram
        let limits = try context.attributes()
        let endpoint = Endpoint(
            queuePairNumber: number, packetSequenceNumber: isDatagram ? 0 : .random(in: 0...0xff_ffff),
            gid: chosen.gid, lid: chosen.lid, mtu: chosen.mtu,
            responderDepth: isDatagram ? 0 : UInt8(clamping: limits.maxResponderDepth),
            // The upper half of the keys is for privileged users (IBTA volume 1, 10.2.5).
            queueKey: isDatagram ? .random(in: 1...0x7fff_ffff) : nil, memory: memory)
        let local = LocalEnd(
            address: chosen, endpoint: endpoint, initiatorDepth: UInt8(clamping: limits.maxInitiatorDepth))
        owner.state.withLock { $0.local = local }
        return endpoint
    }

    /// Connects to a peer that was sent this side's `endpoint`: RC and UC, from RESET through INIT and RTR to RTS.
    ///
    /// Receives may be posted before, in INIT, or after. The peer connects to this side's endpoint likewise;
    /// packets that come before it does are repeated by RC and lost by UC.
    ///
    /// - Throws: `EINVAL` when `endpoint` was not called before, when the two addresses are of different families,
    ///   or as `modify`; `ENETUNREACH`, `EHOSTUNREACH` or `ETIMEDOUT` when the peer's address does not resolve.
    public func connect(
        to peer: Endpoint, options: ConnectionOptions = ConnectionOptions()
    ) throws(VerbsError) {
        let local = try localEnd()
        try requireSameFamily(local.address, peer)
        if lastKnownState == .reset { try initialize(at: local, options) }
        try modify(try readyToReceive(local, peer, options))
        try modify(readyToSend(local, peer, options))
    }

    /// Moves the queue pair to INIT, where receives can be posted: RC, UC and UD. `connect` and `activate` do it
    /// when it has not been done.
    ///
    /// - Throws: as `modify`.
    public func initialize(options: ConnectionOptions = ConnectionOptions()) throws(VerbsError) {
        _ = try endpoint()
        try initialize(at: try localEnd(), options)
    }

    /// Lets a UD queue pair send and receive: from RESET through INIT and RTR to RTS.
    ///
    /// - Throws: as `modify`.
    public func activate(options: ConnectionOptions = ConnectionOptions()) throws(VerbsError) {
        _ = try endpoint()
        let local = try localEnd()
        if lastKnownState == .reset { try initialize(at: local, options) }
        var receive = Attributes()
        receive.state = .readyToReceive
        try modify(receive)
        var send = Attributes()
        send.state = .readyToSend
        send.sendPSN = local.endpoint.packetSequenceNumber
        try modify(send)
    }

    private func localEnd() throws(VerbsError) -> LocalEnd {
        guard let local = owner.state.withLock({ $0.local }) else {
            throw VerbsError(
                .modifyQP, errno: .invalidArgument, object: owner.object,
                hint: "the peer does not know this side: take its endpoint, send it to the peer, then connect")
        }
        return local
    }

    private func requireSameFamily(_ local: PortAddress, _ peer: Endpoint) throws(VerbsError) {
        guard local.linkLayer == .ethernet, local.gid.isIPv4Mapped != peer.gid.isIPv4Mapped else { return }
        throw VerbsError(
            .modifyQP, errno: .invalidArgument, object: owner.object,
            hint: "this side's address is \(local.gid), the peer's is \(peer.gid): choose two of one family with"
                + " endpoint(at:)")
    }

    private func initialize(at local: LocalEnd, _ options: ConnectionOptions) throws(VerbsError) {
        var attributes = Attributes()
        attributes.state = .initialized
        attributes.port = local.address.port
        attributes.pkeyIndex = options.pkeyIndex
        if kind == .unreliableDatagram {
            attributes.queueKey = local.endpoint.queueKey
        } else {
            attributes.access = options.access
        }
        try modify(attributes)
    }

    private func readyToReceive(
        _ local: LocalEnd, _ peer: Endpoint, _ options: ConnectionOptions
    ) throws(VerbsError) -> Attributes {
        var attributes = Attributes()
        attributes.state = .readyToReceive
        attributes.path = AddressVector(to: peer, from: local.address, options)
        attributes.pathMTU = options.pathMTU ?? MTU(rawValue: min(local.address.mtu.rawValue, peer.mtu.rawValue))
        attributes.destinationNumber = peer.queuePairNumber
        attributes.receivePSN = peer.packetSequenceNumber
        if kind != .unreliableConnection {
            attributes.responderDepth = local.endpoint.responderDepth
            attributes.minRNRTimer = options.minRNRTimer
        }
        return attributes
    }

    private func readyToSend(_ local: LocalEnd, _ peer: Endpoint, _ options: ConnectionOptions) -> Attributes {
        var attributes = Attributes()
        attributes.state = .readyToSend
        attributes.sendPSN = local.endpoint.packetSequenceNumber
        if kind != .unreliableConnection {
            attributes.timeout = options.timeout
            attributes.retryCount = options.retryCount
            attributes.rnrRetry = options.rnrRetry
            attributes.initiatorDepth = options.initiatorDepth ?? min(local.initiatorDepth, peer.responderDepth)
        }
        return attributes
    }
}

extension AddressVector {
    /// The way to a peer's endpoint from an address of this side. On Ethernet it is a global route; on InfiniBand
    /// only across subnets, or where the port asks for it.
    public init(to peer: Endpoint, from local: PortAddress, _ options: ConnectionOptions = ConnectionOptions()) {
        let isGlobal = local.requiresGlobalRoute || (!peer.gid.isZero && peer.gid.prefix != local.gid.prefix)
        let route = GlobalRoute(
            gid: peer.gid, sourceIndex: local.gidIndex, flowLabel: options.flowLabel, hopLimit: options.hopLimit,
            trafficClass: options.trafficClass)
        self.init(
            port: local.port, lid: peer.lid, route: isGlobal ? route : nil, serviceLevel: options.serviceLevel)
    }
}

extension ProtectionDomain {
    /// Makes ready to send datagrams to a peer's endpoint.
    ///
    /// - Parameters:
    ///   - peer: the endpoint of a UD queue pair.
    ///   - address: where they leave from; by default the best one of `Context.addresses`.
    ///   - options: service level, traffic class, flow label and hop limit count.
    /// - Throws: as `makeAddressHandle`; `EINVAL` when the endpoint has no queue key.
    public func makeDestination(
        _ peer: Endpoint, from address: PortAddress? = nil, options: ConnectionOptions = ConnectionOptions()
    ) throws(VerbsError) -> DatagramDestination {
        guard let queueKey = peer.queueKey else {
            throw VerbsError(
                .createAH, errno: .invalidArgument, object: object,
                hint: "the endpoint is not that of a UD queue pair: it has no queue key")
        }
        let local: PortAddress
        if let address { local = address } else { local = try context.address() }
        let handle = try makeAddressHandle(AddressVector(to: peer, from: local, options))
        return DatagramDestination(handle: handle, queuePairNumber: peer.queuePairNumber, queueKey: queueKey)
    }
}
