import Glibc
import RoCETransport
import RoCEWire

/// One machine of a test: an engine, memory with a key for everything, and a completion queue.
final class Host {
    let engine: Engine
    let gid: GID
    let domain: ProtectionDomain
    let completions: CompletionQueue
    let memory: UnsafeMutableRawBufferPointer
    /// Key of all of `memory`, with every right; its virtual addresses are the real ones.
    let key: UInt32
    private var used = 0
    /// Room for one outgoing packet.
    let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 16)
    private var queuePairs: [QueuePair] = []
    private var sharedReceiveQueues: [SharedReceiveQueue] = []

    static let everything: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic]

    init(
        _ number: UInt32 = 1, seed: UInt64 = 1, memory byteCount: Int = 1 << 16, completions capacity: UInt32 = 1024,
        configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        var configuration = Configuration(seed: (seed, UInt64(number)))
        configuration.maximumQueuePairs = 64
        configure(&configuration)
        engine = Engine(configuration)
        gid = GID(ipv4: 0x0A00_0000 + number)
        domain = try engine.allocateProtectionDomain()
        completions = try engine.createCompletionQueue(capacity: capacity)
        // calloc: untouched pages cost nothing, and simulations make many hosts.
        memory = UnsafeMutableRawBufferPointer(start: calloc(byteCount, 1)!, count: byteCount)
        key = try engine.registerMemory(
            domain, address: memory.baseAddress, length: UInt64(byteCount),
            virtualAddress: UInt64(UInt(bitPattern: memory.baseAddress!)), access: Self.everything)
    }

    deinit {
        for pair in queuePairs { engine.destroy(pair) }
        for queue in sharedReceiveQueues { try? engine.destroy(queue) }
        try? engine.destroy(completions)
        packet.deallocate()
        free(memory.baseAddress)
    }

    // MARK: - Memory

    /// Takes `count` bytes of the memory; they start at a multiple of 8.
    func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        precondition(used + count <= memory.count, "the test needs more memory")
        let part = UnsafeMutableRawBufferPointer(rebasing: memory[used..<used + count])
        used += (count + 7) & ~7
        return part
    }

    /// The piece of memory as a work request names it.
    func element(_ bytes: UnsafeMutableRawBufferPointer) -> ScatterGatherElement {
        ScatterGatherElement(
            address: UInt64(UInt(bitPattern: bytes.baseAddress)), length: UInt32(bytes.count), key: key)
    }

    // MARK: - Queue pairs

    func makeQueuePair(
        _ type: QueuePairType = .rc, sends: UInt32 = 64, receives: UInt32 = 64, elements: UInt32 = 4,
        inlineData: UInt32 = 64, shared: SharedReceiveQueue? = nil, signalAll: Bool = false,
        completions: CompletionQueue? = nil
    ) throws -> QueuePair {
        var specification = QueuePairSpecification(
            type: type, domain: domain, completions: completions ?? self.completions,
            capabilities: QueuePairCapabilities(
                sendWorkRequests: sends, receiveWorkRequests: receives, sendElements: elements,
                receiveElements: elements, inlineData: inlineData))
        specification.sharedReceiveQueue = shared
        specification.signalAll = signalAll
        let pair = try engine.createQueuePair(specification)
        queuePairs.append(pair)
        return pair
    }

    func makeSharedReceiveQueue(workRequests: UInt32 = 64, elements: UInt32 = 4) throws -> SharedReceiveQueue {
        let queue = try engine.createSharedReceiveQueue(domain, workRequests: workRequests, elements: elements)
        sharedReceiveQueues.append(queue)
        return queue
    }

    func destroy(_ pair: QueuePair) {
        queuePairs.removeAll { $0 == pair }
        engine.destroy(pair)
    }

    // MARK: - Work

    @discardableResult
    func post(_ pair: QueuePair, _ request: SendWorkRequest, _ elements: [ScatterGatherElement] = []) -> Errno {
        let result = pair.stageSend(request, elements: elements, count: elements.count)
        pair.commitSends()
        return result
    }

    @discardableResult
    func postReceive(_ pair: QueuePair, id: UInt64, _ elements: [ScatterGatherElement] = []) -> Errno {
        let result = pair.stageReceive(id: id, elements: elements, count: elements.count)
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

    /// The asynchronous events of queue pairs that wait, by their verbs.h numbers.
    func queuePairEvents() -> [AsyncEventType] {
        events().compactMap { if case .queuePair(_, let type) = $0 { type } else { nil } }
    }
}

/// What a test wants to say about a connection.
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

    /// The same seen from the other side.
    var reversed: Connection {
        var result = self
        result.psn = peerPSN
        result.peerPSN = psn
        return result
    }

    static let toInit: AttributeMask = [.state, .partitionKeyIndex, .port, .access]

    static func toReceive(_ type: QueuePairType) -> AttributeMask {
        let mask: AttributeMask = [.state, .path, .pathMTU, .destinationQueuePair, .receivePSN]
        return type == .uc ? mask : mask.union([.maxDestinationReadAtomic, .minRNRTimer])
    }

    static func toSend(_ type: QueuePairType) -> AttributeMask {
        type == .uc ? [.state, .sendPSN] : [.state, .sendPSN, .timeout, .retryCount, .rnrRetry, .maxReadAtomic]
    }

    func attributes(from gid: GID, to peer: GID, number: UInt32) -> QueuePairAttributes {
        var result = QueuePairAttributes()
        result.port = 1
        result.access = access
        result.path = Path(source: gid, destination: peer)
        result.pathMTU = mtu
        result.destinationQueuePair = number
        result.receivePSN = peerPSN
        result.sendPSN = psn
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
    /// Takes a queue pair from RESET to `state`, connected to number `number` at `peer`.
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

    /// Takes a UD queue pair to RTS.
    func activate(_ pair: QueuePair, queueKey: UInt32, psn: UInt32 = 0) throws {
        var attributes = QueuePairAttributes()
        attributes.port = 1
        attributes.queueKey = queueKey
        attributes.sendPSN = psn
        attributes.state = .initialized
        try engine.modify(pair, attributes, [.state, .partitionKeyIndex, .port, .queueKey])
        attributes.state = .readyToReceive
        try engine.modify(pair, attributes, .state)
        attributes.state = .readyToSend
        try engine.modify(pair, attributes, [.state, .sendPSN])
    }

    func move(_ pair: QueuePair, to state: QueuePairState) throws {
        var attributes = QueuePairAttributes()
        attributes.state = state
        try engine.modify(pair, attributes, .state)
    }
}
