import SystemPackage

/// The attributes that this side of a queue pair has sent to its peer.
struct LocalEnd: Sendable {
    let address: PortAddress
    let endpoint: Endpoint
    /// The largest number of reads and atomics that the device has outstanding on one queue pair.
    let maxRdAtomic: UInt8
}

/// The attributes of a connection that `QueuePair.connect` sets. The defaults suit most applications.
public struct ConnectionOptions: Hashable, Sendable {
    /// The time that the requester waits for a response before it retries (`ibv_qp_attr.timeout`). The default has
    /// exponent 14 and is 67 ms.
    public var timeout = LocalACKTimeout(rawValue: 14)
    /// The number of retries after a timeout: 0 to 7 (`ibv_qp_attr.retry_cnt`).
    public var retryCount: UInt8 = 7
    /// The number of retries after an RNR NAK: 0 to 6; 7 is unlimited (`ibv_qp_attr.rnr_retry`).
    public var rnrRetry: UInt8 = 7
    /// The time that the peer waits after an RNR NAK before it sends again (`ibv_qp_attr.min_rnr_timer`). The
    /// default has code 12 and is 0.64 ms.
    public var minRNRTimer = RNRTimer(rawValue: 12)
    /// The path MTU (`ibv_qp_attr.path_mtu`); by default the smaller of the two ports' MTUs.
    public var pathMTU: MTU?
    /// The largest number of outstanding reads and atomics as the requester (`ibv_qp_attr.max_rd_atomic`); by default
    /// the smaller limit of the two sides.
    public var maxRdAtomic: UInt8?
    /// The operations that the peer may do through this queue pair (`ibv_qp_attr.qp_access_flags`). The access flags of
    /// each region apply as well.
    public var access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic]
    /// Index of the P_Key in the port's table (`ibv_qp_attr.pkey_index`).
    public var pkeyIndex: UInt16 = 0
    /// Service level, 0 to 15 (`ibv_ah_attr.sl`).
    public var serviceLevel: UInt8 = 0
    /// Traffic class; on RoCE v2 the DSCP and ECN bits (`ibv_global_route.traffic_class`).
    public var trafficClass: UInt8 = 0
    /// Flow label, 20 bits (`ibv_global_route.flow_label`).
    public var flowLabel: UInt32 = 0
    /// The hop limit of packets (`ibv_global_route.hop_limit`): the number of routers that a packet may pass, plus 1.
    public var hopLimit: UInt8 = 64

    /// The defaults.
    public init() {}
}

extension QueuePair {
    /// The endpoint of this side. Send it to the peer before `connect`.
    /// The first call chooses the address and a random initial PSN; later calls without an address return the same
    /// endpoint.
    ///
    /// - Parameters:
    ///   - address: The local address of the queue pair, by default the first of `Context.addresses`.
    ///   - memory: Memory that the peer may access, such as `region.remote`.
    /// - Throws: `ENETDOWN` when no port is active.
    public func endpoint(at address: PortAddress? = nil, memory: RemoteMemory? = nil) throws(VerbsError) -> Endpoint {
        if address == nil, var known = owner.state.withLock({ $0.local?.endpoint }) {
            known.memory = memory ?? known.memory
            return known
        }
        let chosen: PortAddress
        if let address { chosen = address } else { chosen = try context.address() }
        let isDatagram = type == .unreliableDatagram
        let limits = try context.attributes()
        let endpoint = Endpoint(
            queuePairNumber: number, packetSequenceNumber: isDatagram ? 0 : .random(in: 0...0xff_ffff),
            gid: chosen.gid, lid: chosen.lid, mtu: chosen.mtu,
            maxDestRdAtomic: isDatagram ? 0 : UInt8(clamping: limits.maxQPRdAtom),
            // Q_Keys with bit 31 set are for privileged users (IBTA volume 1, 10.2.5).
            qkey: isDatagram ? .random(in: 1...0x7fff_ffff) : nil, memory: memory)
        let local = LocalEnd(
            address: chosen, endpoint: endpoint, maxRdAtomic: UInt8(clamping: limits.maxQPInitRdAtom))
        owner.state.withLock { $0.local = local }
        return endpoint
    }

    /// Connects to a peer that was sent this side's `endpoint`: RC, UC and XRC, from RESET through INIT and RTR to RTS.
    /// Receives may be posted before, in INIT, or after. The peer connects to this side's endpoint likewise; packets
    /// that arrive at the peer before it has connected are sent again by RC and XRC, and lost by UC.
    ///
    /// - Throws: `EOPNOTSUPP` on iWARP, where rdma_cm connects queue pairs; `EINVAL` when `endpoint` was not called
    ///   before, when the two addresses are of different families, or as `modify`; `ENETUNREACH`, `EHOSTUNREACH` or `ETIMEDOUT` when the peer's address does not resolve.
    public func connect(
        to peer: Endpoint, options: ConnectionOptions = ConnectionOptions()
    ) throws(VerbsError) {
        try requireConnectable()
        let local = try localEnd()
        try requireSameFamily(local.address, peer)
        if lastKnownState == .reset { try initialize(at: local, options) }
        try modify(try readyToReceive(local, peer, options))
        try modify(readyToSend(local, peer, options))
    }

    /// Moves the queue pair to INIT, where receives can be posted: RC, UC, UD and XRC. `connect` and `activate` do the same
    /// to a queue pair in RESET.
    ///
    /// - Throws: `EOPNOTSUPP` on iWARP, where rdma_cm connects queue pairs; the errors of `modify`.
    public func initialize(options: ConnectionOptions = ConnectionOptions()) throws(VerbsError) {
        try requireConnectable()
        _ = try endpoint()
        try initialize(at: try localEnd(), options)
    }

    /// Lets a UD queue pair send and receive: from RESET through INIT and RTR to RTS.
    ///
    /// - Throws: The errors of `modify`.
    public func activate(options: ConnectionOptions = ConnectionOptions()) throws(VerbsError) {
        _ = try endpoint()
        let local = try localEnd()
        if lastKnownState == .reset { try initialize(at: local, options) }
        var receive = Attributes()
        receive.state = .readyToReceive
        try modify(receive)
        var send = Attributes()
        send.state = .readyToSend
        send.sqPSN = local.endpoint.packetSequenceNumber
        try modify(send)
    }

    /// Throws on iWARP, whose queue pairs only the kernel connects.
    private func requireConnectable() throws(VerbsError) {
        guard context.transportType == .iWARP else { return }
        throw VerbsError(
            .modifyQP, errno: .notSupported, object: owner.object,
            hint: "an iWARP queue pair runs over a TCP connection, which only rdma_cm makes: connect it with"
                + " Connector and Listener of the module ConnectionManager (rdma_connect, rdma_accept)")
    }

    private func localEnd() throws(VerbsError) -> LocalEnd {
        guard let local = owner.state.withLock({ $0.local }) else {
            throw VerbsError(
                .modifyQP, errno: .invalidArgument, object: owner.object,
                hint: "the peer does not have this endpoint: call endpoint(), send the result to the peer, then connect"
            )
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
        if type == .unreliableDatagram {
            attributes.qkey = local.endpoint.qkey
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
        attributes.destinationQPNumber = peer.queuePairNumber
        attributes.rqPSN = peer.packetSequenceNumber
        // An XRC_SEND queue pair has no responder, and an XRC_RECV one no requester.
        if type != .unreliableConnection, type != .xrcSend {
            attributes.maxDestRdAtomic = local.endpoint.maxDestRdAtomic
            attributes.minRNRTimer = options.minRNRTimer
        }
        return attributes
    }

    private func readyToSend(_ local: LocalEnd, _ peer: Endpoint, _ options: ConnectionOptions) -> Attributes {
        var attributes = Attributes()
        attributes.state = .readyToSend
        attributes.sqPSN = local.endpoint.packetSequenceNumber
        if type != .unreliableConnection { attributes.timeout = options.timeout }
        if type != .unreliableConnection, type != .xrcReceive {
            attributes.retryCount = options.retryCount
            attributes.rnrRetry = options.rnrRetry
            attributes.maxRdAtomic = options.maxRdAtomic ?? min(local.maxRdAtomic, peer.maxDestRdAtomic)
        }
        return attributes
    }
}

extension AddressVector {
    /// The address vector of a peer's endpoint, from a local address. It has a global route on Ethernet; on InfiniBand
    /// only across subnets, or when the port requires it (`IBV_QPF_GRH_REQUIRED`).
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
    /// Makes a destination of datagrams from a peer's endpoint, with an address handle of its own: ibv_create_ah(3).
    ///
    /// - Parameters:
    ///   - peer: The endpoint of a UD queue pair.
    ///   - address: The local address, by default the first of `Context.addresses`.
    ///   - options: The service level, traffic class, flow label and hop limit; the other options are ignored.
    /// - Throws: The errors of `makeAddressHandle`; `EINVAL` when the endpoint has no Q_Key.
    public func makeDestination(
        _ peer: Endpoint, from address: PortAddress? = nil, options: ConnectionOptions = ConnectionOptions()
    ) throws(VerbsError) -> DatagramDestination {
        guard let qkey = peer.qkey else {
            throw VerbsError(
                .createAH, errno: .invalidArgument, object: object,
                hint: "the endpoint is not that of a UD queue pair: it has no queue key")
        }
        let local: PortAddress
        if let address { local = address } else { local = try context.address() }
        let handle = try makeAddressHandle(AddressVector(to: peer, from: local, options))
        return DatagramDestination(handle: handle, queuePairNumber: peer.queuePairNumber, qkey: qkey)
    }
}
