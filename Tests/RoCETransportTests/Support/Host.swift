import Glibc
import RoCETransport
import RoCEWire
import Synchronization

/// One host of a test: an engine, a memory region with all access flags, and a completion queue.
final class Host {
    let engine: Engine
    let gid: GID
    let domain: ProtectionDomain
    let completions: CompletionQueue
    let memory: UnsafeMutableRawBufferPointer
    /// The key of `memory`, with every access flag; `iova` is the address in this process.
    let key: UInt32
    private var used = 0
    /// The access table of the engine, and the mapping of `memory`, number 1, for its neighbors (`publish`).
    private var table: UnsafeMutableRawPointer?
    private let mappings = UnsafeMutablePointer<SharedMapping>.allocate(capacity: Neighbor.mappingCount)
    /// The word of the neighbors of this host (`Hazard`).
    let hazard = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: 1)
    /// A buffer for one outgoing packet.
    let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 16)
    private var queuePairs: [QueuePair] = []
    private var sharedReceiveQueues: [SharedReceiveQueue] = []
    private var xrcDomains: [XRCDomain] = []

    static let everything: AccessFlags = [
        .localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .memoryWindowBind, .flushGlobal,
    ]

    /// - Parameters:
    ///   - hasEvents: Whether the completion queue raises completion events.
    ///   - isShared: Whether neighbors map the memory.
    init(
        _ number: UInt32 = 1, seed: UInt64 = 1, memory byteCount: Int = 1 << 16, completions capacity: UInt32 = 1024,
        hasEvents: Bool = true, isShared: Bool = false,
        configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        var configuration = Configuration(seed: (seed, UInt64(number)))
        configuration.maximumQueuePairs = 64
        // As the kernel's rxe, with a response to each packet, unless a test is about others.
        configuration.heldRequests = 0
        configure(&configuration)
        engine = Engine(configuration)
        gid = GID(ipv4: 0x0A00_0000 + number)
        domain = try engine.allocateProtectionDomain()
        completions = try engine.createCompletionQueue(capacity: capacity, hasEvents: hasEvents)
        // calloc: pages that are not accessed cost nothing, and simulations create many hosts.
        memory = UnsafeMutableRawBufferPointer(start: calloc(byteCount, 1)!, count: byteCount)
        key = try engine.registerMemory(
            domain, address: memory.baseAddress, length: UInt64(byteCount),
            virtualAddress: UInt64(UInt(bitPattern: memory.baseAddress!)), access: Self.everything,
            shared: (isShared ? 1 : 0, 0))
        mappings.initialize(repeating: SharedMapping(), count: Neighbor.mappingCount)
        mappings[1].number = 1
        mappings[1].address = memory.baseAddress
        mappings[1].byteCount = UInt64(byteCount)
        hazard.initialize(to: Atomic(0))
    }

    /// Makes the access table of the engine.
    func publish() {
        let memory = calloc(AccessTable.byteCount(maximumQueuePairs: 64), 1)!
        table = memory
        engine.publish(
            AccessTable(memory, maximumQueuePairs: 64, descriptor: -1, note: (3, 4), reserve: { _, _, _ in true }))
    }

    /// This host as a neighbor of another one, after `publish`.
    func neighbor(_ reach: Neighbor.Reach = .none) -> Neighbor? {
        Neighbor(
            table: table!, byteCount: AccessTable.byteCount(maximumQueuePairs: 64), hazard: hazard, reach: reach,
            mappings: mappings)
    }

    deinit {
        for pair in queuePairs { engine.destroy(pair) }
        for queue in sharedReceiveQueues { try? engine.destroy(queue) }
        for domain in xrcDomains { try? engine.close(domain) }
        try? engine.destroy(completions)
        packet.deallocate()
        free(memory.baseAddress)
        free(table)
        mappings.deallocate()
        hazard.deallocate()
    }

    // MARK: - Memory

    /// Allocates `count` bytes of the memory, aligned to 8.
    func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        precondition(used + count <= memory.count, "the test needs more memory")
        let part = UnsafeMutableRawBufferPointer(rebasing: memory[used..<used + count])
        used += (count + 7) & ~7
        return part
    }

    /// The SGE of a memory range.
    func sge(_ bytes: UnsafeMutableRawBufferPointer) -> SGE {
        SGE(
            address: UInt64(UInt(bitPattern: bytes.baseAddress)), length: UInt32(bytes.count), lkey: key)
    }

    // MARK: - Memory windows

    /// A work request that binds a window of type 2 to a range of the memory, with the next key.
    func bindRequest(
        id: UInt64, window: UInt32, to bytes: UnsafeMutableRawBufferPointer,
        access: AccessFlags = [.remoteWrite, .remoteRead, .remoteAtomic], flags: SendFlags = .signaled
    ) -> SendWQE {
        var request = SendWQE(id: id, opcode: .bindMemoryWindow, flags: flags)
        request.bind(
            key: window & ~0xFF | (window &+ 1) & 0xFF, lkey: key,
            address: UInt64(UInt(bitPattern: bytes.baseAddress)), length: UInt64(bytes.count), access: access)
        return request
    }

    /// Binds a new window of type 2 on a queue pair that has nothing to send, and returns its key.
    func bindWindow(
        on pair: QueuePair, to bytes: UnsafeMutableRawBufferPointer,
        access: AccessFlags = [.remoteWrite, .remoteRead, .remoteAtomic]
    ) throws -> UInt32 {
        let window = try engine.allocateMemoryWindow(domain, .two)
        let request = bindRequest(id: 0, window: window, to: bytes, access: access)
        guard post(pair, request) == .success, engine.transmit(into: packet, now: 0) == nil,
            poll().map(\.status) == [.success]
        else { throw Errno.invalid }
        return request.rkey
    }

    // MARK: - Queue pairs

    func makeQueuePair(
        _ type: QueuePairType = .rc, sends: UInt32 = 64, receives: UInt32 = 64, maxSGE: UInt32 = 4,
        maxReceiveSGE: UInt32? = nil, maxInlineData: UInt32 = 64, shared: SharedReceiveQueue? = nil,
        sqSigAll: Bool = false,
        completions: CompletionQueue? = nil
    ) throws -> QueuePair {
        var specification = QueuePairInitAttributes(
            type: type, domain: domain, completions: completions ?? self.completions,
            capabilities: QueuePairCapabilities(
                maxSendWR: sends, maxReceiveWR: receives, maxSendSGE: maxSGE,
                maxReceiveSGE: maxReceiveSGE ?? maxSGE, maxInlineData: maxInlineData))
        specification.sharedReceiveQueue = shared
        specification.sqSigAll = sqSigAll
        let pair = try engine.createQueuePair(specification)
        queuePairs.append(pair)
        return pair
    }

    func makeSharedReceiveQueue(maxWR: UInt32 = 64, maxSGE: UInt32 = 4) throws -> SharedReceiveQueue {
        let queue = try engine.createSharedReceiveQueue(domain, maxWR: maxWR, maxSGE: maxSGE)
        sharedReceiveQueues.append(queue)
        return queue
    }

    func openXRCDomain() throws -> XRCDomain {
        let domain = try engine.openXRCDomain()
        xrcDomains.append(domain)
        return domain
    }

    func makeReceiver(_ domain: XRCDomain) throws -> QueuePair {
        let pair = try engine.createQueuePair(QueuePairInitAttributes(xrcDomain: domain))
        queuePairs.append(pair)
        return pair
    }

    /// A shared receive queue for XRC.
    func makeSharedReceiveQueue(
        _ xrcDomain: XRCDomain, domain: ProtectionDomain? = nil, completions: CompletionQueue? = nil, maxWR: UInt32 = 64
    ) throws -> SharedReceiveQueue {
        let queue = try engine.createSharedReceiveQueue(
            domain ?? self.domain, xrcDomain: xrcDomain, completions: completions ?? self.completions, maxWR: maxWR,
            maxSGE: 4)
        sharedReceiveQueues.append(queue)
        return queue
    }

    func destroy(_ queue: SharedReceiveQueue) throws {
        try engine.destroy(queue)
        sharedReceiveQueues.removeAll { $0 == queue }
    }

    func destroy(_ pair: QueuePair) {
        queuePairs.removeAll { $0 == pair }
        engine.destroy(pair)
    }

    // MARK: - Work

    @discardableResult
    func post(
        _ pair: QueuePair, _ request: SendWQE, _ sgList: [SGE] = [], path: UnsafePointer<Path>? = nil
    ) -> Errno {
        let result = pair.stageSend(request, path: path, sgList: sgList, count: sgList.count)
        pair.commitSends()
        return result
    }

    @discardableResult
    func postReceive(_ pair: QueuePair, id: UInt64, _ sgList: [SGE] = []) -> Errno {
        let result = pair.stageReceive(id: id, sgList: sgList, count: sgList.count)
        pair.commitReceives()
        return result
    }

    func poll(_ queue: CompletionQueue? = nil) -> [WorkCompletion] {
        var result: [WorkCompletion] = []
        var completion = WorkCompletion()
        while (queue ?? completions).poll(into: &completion, count: 1) == 1 { result.append(completion) }
        return result
    }

    func events() -> [Event] {
        var result: [Event] = []
        while let event = engine.nextEvent() { result.append(event) }
        return result
    }

    /// Takes all events, and returns those of queue pairs.
    func queuePairEvents() -> [AsyncEventType] {
        events().compactMap { if case .queuePair(_, let type) = $0 { type } else { nil } }
    }
}

/// The settings of a connection.
struct Connection {
    var mtu: UInt32 = 1024
    var psn: UInt32 = 0x100
    var peerPSN: UInt32 = 0x200
    var timeout: UInt8 = 10
    var retryCount: UInt8 = 3
    var rnrRetry: UInt8 = 3
    var minRNRTimer: UInt8 = 1
    var maxReadAtomic: UInt8 = 4
    var maxDestinationReadAtomic: UInt8 = 4
    var access = Host.everything
    /// The tag of the path.
    var tag: UInt64 = 0

    /// The same connection from the peer's view.
    var reversed: Connection {
        var result = self
        result.psn = peerPSN
        result.peerPSN = psn
        return result
    }

    static let toInit: AttributeMask = [.state, .pkeyIndex, .port, .access]

    static func toReceive(_ type: QueuePairType) -> AttributeMask {
        let mask: AttributeMask = [.state, .path, .pathMTU, .destinationQPN, .rqPSN]
        return type == .uc || type == .xrcSend ? mask : mask.union([.maxDestinationReadAtomic, .minRNRTimer])
    }

    static func toSend(_ type: QueuePairType) -> AttributeMask {
        if type == .xrcReceive { return [.state, .sqPSN, .timeout] }
        return type == .uc ? [.state, .sqPSN] : [.state, .sqPSN, .timeout, .retryCount, .rnrRetry, .maxReadAtomic]
    }

    func attributes(from gid: GID, to peer: GID, number: UInt32) -> QueuePairAttributes {
        var result = QueuePairAttributes()
        result.port = 1
        result.access = access
        result.path = Path(source: gid, destination: peer, tag: tag)
        result.pathMTU = mtu
        result.destinationQPN = number
        result.rqPSN = peerPSN
        result.sqPSN = psn
        result.maxDestinationReadAtomic = maxDestinationReadAtomic
        result.minRNRTimer = minRNRTimer
        result.timeout = timeout
        result.retryCount = retryCount
        result.rnrRetry = rnrRetry
        result.maxReadAtomic = maxReadAtomic
        return result
    }
}

extension Host {
    /// Moves a queue pair from RESET to `state`, connected to the QPN `number` at `peer`.
    func connect(
        _ pair: QueuePair, to peer: GID, number: UInt32, _ connection: Connection = Connection(),
        upTo state: QueuePairState = .readyToSend
    ) throws {
        var attributes = connection.attributes(from: gid, to: peer, number: number)
        attributes.state = .initialized
        try engine.modify(pair, attributes, Connection.toInit)
        guard state.rawValue > QueuePairState.initialized.rawValue else { return }
        attributes.state = .readyToReceive
        try engine.modify(pair, attributes, Connection.toReceive(pair.type))
        guard state.rawValue > QueuePairState.readyToReceive.rawValue else { return }
        attributes.state = .readyToSend
        try engine.modify(pair, attributes, Connection.toSend(pair.type))
    }

    /// Moves a UD queue pair from RESET to RTS.
    func activate(_ pair: QueuePair, qkey: UInt32, psn: UInt32 = 0) throws {
        var attributes = QueuePairAttributes()
        attributes.port = 1
        attributes.qkey = qkey
        attributes.sqPSN = psn
        attributes.state = .initialized
        try engine.modify(pair, attributes, [.state, .pkeyIndex, .port, .qkey])
        attributes.state = .readyToReceive
        try engine.modify(pair, attributes, .state)
        attributes.state = .readyToSend
        try engine.modify(pair, attributes, [.state, .sqPSN])
    }

    func move(_ pair: QueuePair, to state: QueuePairState) throws {
        var attributes = QueuePairAttributes()
        attributes.state = state
        try engine.modify(pair, attributes, .state)
    }
}
