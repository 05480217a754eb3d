import RoCETransport
import RoCEWire

/// One engine with queue pairs of all types, whose operations are read from bytes. For any bytes, the engine must not
/// crash, must access only registered memory, and must return at most one completion per work request, in order. The
/// test suite passes random bytes, the fuzzer its input.
final class EngineWorld {
    private let engine: Engine
    private let gid = GID(ipv4: 0x0A00_0001)
    private let domain: ProtectionDomain
    private let completions: CompletionQueue
    private let shared: SharedReceiveQueue
    /// The XRC domain of the XRC_RECV queue pair, and the two shared receive queues for XRC.
    private let xrcDomain: XRCDomain
    private var numbered: [SharedReceiveQueue]
    /// Each region is a separate allocation, so that a sanitizer detects an access beyond it.
    private let writable = UnsafeMutableRawBufferPointer.allocate(byteCount: 2048, alignment: 8)
    private let readable = UnsafeMutableRawBufferPointer.allocate(byteCount: 512, alignment: 8)
    private let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: Engine.packetRoom, alignment: 8)
    private var writableKey: UInt32
    private let readableKey: UInt32
    /// A window of type 1 and one of type 2: their keys as last bound.
    private var windows: [UInt32]
    private var pairs: [Tracked] = []
    private var now: UInt64 = 1
    private var input = Input(bytes: [])

    /// A queue pair, and its numbers of posted and completed work requests since RESET.
    private struct Tracked {
        let pair: QueuePair
        let peer: UInt32
        var sends: UInt64 = 0
        var receives: UInt64 = 0
        var nextSend: UInt64 = 0
        var nextReceive: UInt64 = 0
        let hasSharedQueue: Bool
    }

    struct Input {
        var bytes: [UInt8]
        var offset = 0

        var isEmpty: Bool { offset >= bytes.count }

        mutating func byte() -> UInt8 {
            guard !isEmpty else { return 0 }
            offset += 1
            return bytes[offset - 1]
        }

        mutating func number(_ count: Int) -> UInt64 {
            var result: UInt64 = 0
            for _ in 0..<count { result = result << 8 | UInt64(byte()) }
            return result
        }
    }

    private static let readablePattern: UInt8 = 0x5A

    init() throws {
        var configuration = Configuration(seed: (1, 2))
        configuration.maximumQueuePairs = 64
        configuration.activeMTU = 1024
        configuration.maximumWindow = 8
        configuration.initialWindow = 4
        configuration.readSegment = 2
        configuration.heldRequests = 4
        engine = Engine(configuration)
        domain = try engine.allocateProtectionDomain()
        completions = try engine.createCompletionQueue(capacity: 256)
        shared = try engine.createSharedReceiveQueue(domain, maxWR: 8, maxSGE: 2)
        xrcDomain = try engine.openXRCDomain()
        numbered = []
        writable.initializeMemory(as: UInt8.self, repeating: 0)
        readable.initializeMemory(as: UInt8.self, repeating: Self.readablePattern)
        let everything: AccessFlags = [
            .localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .memoryWindowBind, .flushGlobal,
        ]
        windows = [
            try engine.allocateMemoryWindow(domain, .one), try engine.allocateMemoryWindow(domain, .two),
        ]
        writableKey = try engine.registerMemory(
            domain, address: writable.baseAddress, length: 2048, virtualAddress: 0x1000, access: everything)
        readableKey = try engine.registerMemory(
            domain, address: readable.baseAddress, length: 512, virtualAddress: 0x8000, access: .remoteRead)
        for _ in 0..<2 { numbered.append(try makeNumbered()) }
        // Two connected RC queue pairs, one RC with the SRQ whose peer is the input, UC connected to itself, UD, and the
        // two sides of an XRC connection.
        let types: [QueuePairType] = [.rc, .rc, .rc, .uc, .ud, .xrcSend, .xrcReceive]
        var created: [QueuePair] = []
        for (index, type) in types.enumerated() { created.append(try create(type, shared: index == 2)) }
        for (index, pair) in created.enumerated() {
            let peers = [1: 0, 0: 1, 3: 3, 5: 6, 6: 5]
            let peer = peers[index].map { created[$0].number } ?? 0x77
            pairs.append(Tracked(pair: pair, peer: peer, hasSharedQueue: index == 2 || index == 6))
            for state: QueuePairState in [.initialized, .readyToReceive, .readyToSend] { modify(index, to: state) }
        }
    }

    deinit {
        for tracked in pairs { engine.destroy(tracked.pair) }
        try? engine.destroy(shared)
        for queue in numbered { try? engine.destroy(queue) }
        try? engine.close(xrcDomain)
        try? engine.destroy(completions)
        writable.deallocate()
        readable.deallocate()
        packet.deallocate()
    }

    private func makeNumbered() throws -> SharedReceiveQueue {
        try engine.createSharedReceiveQueue(
            domain, xrcDomain: xrcDomain, completions: completions, maxWR: 8, maxSGE: 2)
    }

    private func create(_ type: QueuePairType, shared isShared: Bool) throws -> QueuePair {
        if type == .xrcReceive { return try engine.createQueuePair(QueuePairInitAttributes(xrcDomain: xrcDomain)) }
        var specification = QueuePairInitAttributes(
            type: type, domain: domain, completions: completions,
            capabilities: QueuePairCapabilities(
                maxSendWR: 8, maxReceiveWR: 8, maxSendSGE: 2, maxReceiveSGE: 2, maxInlineData: 16))
        if isShared { specification.sharedReceiveQueue = shared }
        return try engine.createQueuePair(specification)
    }

    // MARK: - Running

    /// Runs the operations in `bytes` and returns the violated property, or nil.
    func violation(_ bytes: [UInt8]) -> String? {
        input = Input(bytes: bytes)
        while !input.isEmpty {
            if let problem = act() ?? check() { return problem }
        }
        now &+= 1 << 40
        engine.advance(to: now)
        if let problem = transmitAll() ?? check() { return problem }
        for byte in readable where byte != Self.readablePattern { return "memory without write access was written" }
        return nil
    }

    private func act() -> String? {
        switch input.byte() % 10 {
        case 0, 1, 2: receiveConstructed()
        case 3: receiveRaw()
        case 4: postSend()
        case 5: postReceive()
        case 6: return transmitAll()
        case 7:
            now &+= input.number(3)
            engine.advance(to: now)
        case 8: change()
        default: completions.arm(solicitedOnly: input.byte() & 1 != 0)
        }
        return nil
    }

    private func check() -> String? {
        while engine.nextEvent() != nil {}
        return pollAll()
    }

    private func pollAll() -> String? {
        var completion = WorkCompletion()
        while completions.poll(into: &completion, count: 1) == 1 {
            guard let index = pairs.firstIndex(where: { $0.pair.number == completion.queuePairNumber }) else {
                return "completion of a queue pair that does not exist"
            }
            if completion.opcode.rawValue & 0x80 == 0 {
                guard completion.id >= pairs[index].nextSend, completion.id < pairs[index].sends else {
                    return "send \(completion.id) completes where \(pairs[index].nextSend) is next"
                }
                pairs[index].nextSend = completion.id + 1
            } else if !pairs[index].hasSharedQueue {
                guard completion.id == pairs[index].nextReceive, completion.id < pairs[index].receives else {
                    return "receive \(completion.id) completes where \(pairs[index].nextReceive) is next"
                }
                pairs[index].nextReceive += 1
            }
        }
        return nil
    }

    /// Transmits all packets and delivers most of them to the engine. It must end, because the time does not advance.
    private func transmitAll() -> String? {
        let orders: [AcknowledgementOrder] = [.last, .first, .held, .only]
        for _ in 0..<10_000 {
            let order = orders[Int(input.byte() & 3)]
            // The last two leave packets to a later call.
            guard
                var sent = engine.transmit(into: packet, acknowledgements: order, now: now)
                    ?? engine.transmit(into: packet, now: now)
            else { return nil }
            let bytes = UnsafeRawBufferPointer(rebasing: packet[..<sent.byteCount])
            guard let parsed = try? TransportPacket(parsing: bytes) else { return "an unreadable packet was sent" }
            guard parsed.headers.bth.destinationQPN == sent.destinationQPN else { return "wrong destination" }
            let fate = input.byte() & 7
            if fate & 3 == 3 { engine.separateAcknowledgement(of: &sent) }
            if fate == 7 { continue }
            engine.receive(
                bytes,
                from: PacketSource(
                    source: gid, destination: gid, header: UnsafeRawBufferPointer(rebasing: readable[..<40])),
                acknowledged: sent.acknowledged, now: now)
        }
        return "transmit does not end"
    }

    // MARK: - Packets

    /// Receives a packet whose fields are correct or slightly wrong.
    private func receiveConstructed() {
        let index = Int(input.byte()) % pairs.count
        let opcode = Opcode(rawValue: input.byte())
        guard opcode.isKnown else { return }
        let attributes = engine.attributes(of: pairs[index].pair)
        let base = opcode.isResponse ? attributes.sqPSN : attributes.rqPSN
        let flags = input.byte()
        // Near the expected PSN, or 2^23 (half of the PSN space) away from it.
        let offset = UInt32(bitPattern: Int32(Int8(bitPattern: input.byte())) >> 4) &+ (flags & 128 != 0 ? 1 << 23 : 0)
        var headers = PacketHeaders(
            BTH(
                opcode: opcode, destinationQPN: pairs[index].pair.number, psn: PSN(base &+ offset),
                acknowledgeRequest: flags & 1 != 0, solicited: flags & 2 != 0))
        var key = flags & 4 != 0 ? readableKey : writableKey
        if flags & 48 == 48 { key = windows[Int(flags & 1)] }
        headers.ieth = IETH(rkey: windows[1])
        let address = (flags & 4 != 0 ? 0x8000 : 0x1000) &+ UInt64(input.byte()) &* 8 &- (flags & 8 != 0 ? 4 : 0)
        let length = [0, 1, 8, 256, 255, 512, 1024, 3][Int(input.byte() & 7)]
        let announced = flags & 16 != 0 ? UInt32(truncatingIfNeeded: input.number(2)) : UInt32(length)
        headers.bth.migrated = flags & 64 != 0
        if opcode.transport == .unreliableDatagram && flags & 1 != 0 { headers.bth.destinationQPN = 0xFF_FFFF }
        headers.deth = DETH(qkey: 0x1234, sourceQPN: 5)
        headers.xrceth = XRCETH(sharedReceiveQueueNumber: number(flags))
        headers.reth = RETH(virtualAddress: address, rkey: key, dmaLength: announced)
        headers.atomicETH = AtomicETH(virtualAddress: address, rkey: key, swapOrAdd: 3)
        headers.feth = FETH(placement: flags & 3, selectivity: flags >> 2 & 3)
        headers.aeth = AETH(syndrome: AETHSyndrome(rawValue: flags & 32 != 0 ? input.byte() : 0x1F), msn: 0)
        let payload = opcode.hasPayload ? length : 0
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: headers.packetByteCount(payloadByteCount: payload), alignment: 8)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 7)
        guard (try? headers.emit(into: bytes, payloadByteCount: payload)) != nil else { return }
        let source = PacketSource(
            source: gid, destination: gid,
            header: UnsafeRawBufferPointer(rebasing: readable[..<(flags & 64 != 0 ? 20 : 40)]))
        if flags & 16 != 0 && bytes.count <= RunRecord.byteCount - RunRecord.packetOffset {
            receiveRun(UnsafeRawBufferPointer(bytes), headers.bth.psn, from: source)
        } else {
            engine.receive(UnsafeRawBufferPointer(bytes), from: source, now: now)
        }
    }

    /// Receives a packet as the first one of a run. The records after it have the next PSNs, except for a changed byte.
    private func receiveRun(_ packet: UnsafeRawBufferPointer, _ first: PSN, from source: PacketSource) {
        let (count, header) = (4, UInt64(1) << 31)
        let records = UnsafeMutableRawBufferPointer.allocate(
            byteCount: count * RunRecord.byteCount, alignment: RunRecord.byteCount)
        defer { records.deallocate() }
        records.initializeMemory(as: UInt8.self, repeating: 0)
        var psn = first
        for offset in stride(from: 0, to: records.count, by: RunRecord.byteCount) {
            records.storeBytes(of: header | UInt64(packet.count), toByteOffset: offset, as: UInt64.self)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: records[(offset + RunRecord.packetOffset)...])
            bytes.copyMemory(from: packet)
            for index in 9..<12 { bytes[index] = UInt8(truncatingIfNeeded: psn.rawValue >> UInt32(8 * (11 - index))) }
            psn = psn.next
        }
        let changed = RunRecord.byteCount + Int(input.byte()) % (records.count - RunRecord.byteCount)
        records[changed] ^= input.byte()
        let received = engine.receiveRun(
            records.baseAddress!, first: header | UInt64(packet.count), header: header, limit: count, from: source,
            acknowledged: nil, now: now)
        precondition((1...count).contains(received), "a run has more records than it may have")
    }

    /// The number of one of the shared receive queues for XRC, or of none.
    private func number(_ choice: UInt8) -> UInt32 { choice & 7 == 7 ? 1 : numbered[Int(choice & 1)].number ?? 0 }

    /// Receives bytes of the input with the destination QP number of a queue pair.
    private func receiveRaw() {
        let index = Int(input.byte()) % pairs.count
        var bytes: [UInt8] = []
        for _ in 0..<input.byte() { bytes.append(input.byte()) }
        let number = pairs[index].pair.number
        if bytes.count > 7 {
            for offset in 5...7 { bytes[offset] = UInt8(truncatingIfNeeded: number >> UInt32(8 * (7 - offset))) }
        }
        let source = PacketSource(
            source: gid, destination: gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
        let kind = input.byte()
        let isReference = kind & 3 == 0
        let acknowledged = kind & 4 == 0 ? nil : PSN(UInt32(kind >> 3))
        bytes.withUnsafeBytes { bytes in
            if isReference {
                engine.receiveReference(bytes, from: source, acknowledged: acknowledged, now: now)
            } else {
                engine.receive(bytes, from: source, acknowledged: acknowledged, now: now)
            }
        }
    }

    // MARK: - Work

    private func sge() -> SGE {
        let kind = input.byte()
        let address = UInt64(input.byte()) &* 8
        let length = UInt32(kind & 15) &* 37
        switch kind >> 6 {
        case 0: return SGE(address: 0x8000 &+ address, length: length, lkey: readableKey)
        case 1: return SGE(address: address, length: length, lkey: writableKey ^ 1)
        default: return SGE(address: 0x1000 &+ address, length: length, lkey: writableKey)
        }
    }

    private func postSend() {
        let index = Int(input.byte()) % pairs.count
        let tracked = pairs[index]
        var flags = SendFlags(rawValue: UInt32(input.byte() & 15))
        var request = SendWQE(
            id: tracked.sends,
            opcode: WorkRequestOpcode(
                rawValue: UInt32([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 14][Int(input.byte()) % 13])))
        request.rkey = writableKey
        request.remoteAddress = 0x1000 &+ UInt64(input.byte()) &* 4
        request.remoteQPN = tracked.pair.type == .xrcSend ? number(input.byte()) : tracked.pair.number
        request.remoteQKey = 0x1234
        request.compareAdd = 1
        if request.opcode == .bindMemoryWindow {
            let choice = Int(input.byte())
            let key = windows[choice & 1]
            request.bind(
                key: key & ~0xFF | (key &+ 1) & 0xFF, lkey: choice & 2 != 0 ? readableKey : writableKey,
                address: request.remoteAddress, length: UInt64(input.byte()) &* 8,
                access: AccessFlags(rawValue: UInt32(input.byte() & 0x2E)))
            windows[choice & 1] = request.rkey
        } else if request.opcode == .flush {
            let choice = input.byte()
            request.flush(length: UInt64(choice) &* 8, placement: choice & 3, selectivity: choice >> 6)
        } else if request.opcode == .localInvalidate || request.opcode == .sendWithInvalidate {
            request.immediate = windows[1]
        }
        // Inline data is read at its address in this process.
        var sgList = [sge(), sge()]
        if flags.contains(.inline) {
            sgList = [
                SGE(
                    address: UInt64(UInt(bitPattern: readable.baseAddress)), length: UInt32(input.byte() & 31), lkey: 0)
            ]
        }
        if input.byte() & 3 == 0 { sgList = [] }
        if sgList.isEmpty { flags.remove(.inline) }
        request.flags = flags
        var path = Path(source: gid, destination: gid)
        let result = withUnsafePointer(to: &path) { path in
            tracked.pair.stageSend(request, path: path, sgList: sgList, count: sgList.count)
        }
        if result == .success { pairs[index].sends += 1 }
        tracked.pair.commitSends()
    }

    private func postReceive() {
        let index = Int(input.byte()) % pairs.count
        let tracked = pairs[index]
        let sgList = input.byte() & 3 == 0 ? [] : [sge(), sge()]
        if tracked.hasSharedQueue {
            let queue = index == 2 ? shared : numbered[Int(input.byte() & 1)]
            _ = queue.stageReceive(id: 0, sgList: sgList, count: sgList.count)
            queue.commitReceives()
            return
        }
        if tracked.pair.stageReceive(id: tracked.receives, sgList: sgList, count: sgList.count) == .success {
            pairs[index].receives += 1
        }
        tracked.pair.commitReceives()
    }

    // MARK: - Control

    private func change() {
        let choice = input.byte()
        if choice == 0xBF {
            for index in windows.indices {
                try? engine.deallocateMemoryWindow(windows[index])
                windows[index] = (try? engine.allocateMemoryWindow(domain, index == 0 ? .one : .two)) ?? 0
            }
            return
        }
        if choice == 0xBE {
            let index = Int(input.byte() & 1)
            try? engine.destroy(numbered[index])
            if let queue = try? makeNumbered() { numbered[index] = queue }
            return
        }
        if choice & 0xC0 == 0xC0 {
            // While windows are bound to the region, it stays registered.
            guard engine.boundWindows(of: writableKey) == 0 else { return }
            // The region is deregistered and registered again with another key.
            try? engine.deregisterMemory(writableKey)
            writableKey =
                (try? engine.registerMemory(
                    domain, address: writable.baseAddress, length: 2048, virtualAddress: 0x1000,
                    access: [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .memoryWindowBind])) ?? 0
            return
        }
        if choice & 0xC0 == 0x80 { return set(choice & 7) }
        let index = Int(choice & 7) % pairs.count
        let states: [QueuePairState] = [
            .reset, .initialized, .readyToReceive, .readyToSend, .sendQueueDrained, .error, .readyToSend,
        ]
        modify(index, to: states[Int(choice >> 3 & 7) % states.count])
    }

    /// Sets attributes of queues other than states. A refusal is no violation.
    private func set(_ choice: UInt8) {
        let pair = pairs[Int(input.byte()) % pairs.count].pair
        var attributes = QueuePairAttributes()
        switch choice {
        case 0:
            attributes.alternatePath = Path(source: gid, destination: gid, flowLabel: 1)
            attributes.alternatePort = 1
            attributes.alternateTimeout = 1
            attributes.migration = .rearm
            try? engine.modify(pair, attributes, [.alternatePath, .pathMigration])
        case 1: try? engine.modify(pair, attributes, .pathMigration)
        case 2:
            attributes.rateLimit = UInt32(input.number(3))
            try? engine.modify(pair, attributes, .rateLimit)
        case 3: try? engine.limitRate(of: pair, to: UInt32(input.byte()), burst: UInt32(input.byte()))
        case 4: engine.moderate(completions, count: UInt16(input.byte()), period: input.number(2))
        case 5: try? engine.resize(shared, maxWR: UInt32(input.byte() & 15))
        case 6: _ = try? engine.attach(pair, to: gid)
        default: try? engine.detach(pair, from: gid)
        }
    }

    private func modify(_ index: Int, to state: QueuePairState) {
        let tracked = pairs[index]
        var attributes = QueuePairAttributes()
        attributes.state = state
        attributes.port = 1
        attributes.access = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .flushGlobal]
        attributes.path = Path(source: gid, destination: gid)
        if index < 2 && state == .readyToReceive {
            attributes.path.tag = input.byte() & 1 == 0 ? Path.sameHost : 0
        }
        attributes.pathMTU = 256
        attributes.destinationQPN = tracked.peer
        attributes.qkey = 0x1234
        attributes.rqPSN = 0xFF_FFFE
        attributes.sqPSN = 0xFF_FFFE
        attributes.maxReadAtomic = 2
        attributes.maxDestinationReadAtomic = 2
        attributes.minRNRTimer = 1
        attributes.timeout = 1
        attributes.retryCount = 2
        attributes.rnrRetry = 2
        attributes.sqdAsyncNotify = true
        let mask = Self.mask(state, tracked.pair)
        guard (try? engine.modify(tracked.pair, attributes, mask)) != nil, state == .reset else { return }
        pairs[index].sends = 0
        pairs[index].nextSend = 0
        pairs[index].receives = 0
        pairs[index].nextReceive = 0
    }

    private static func mask(_ state: QueuePairState, _ pair: QueuePair) -> AttributeMask {
        let isDatagram = pair.type == .ud
        switch (pair.state, state) {
        case (.reset, .initialized):
            return isDatagram
                ? [.state, .pkeyIndex, .port, .qkey] : [.state, .pkeyIndex, .port, .access]
        case (.initialized, .readyToReceive):
            if isDatagram { return .state }
            let connected: AttributeMask = [.state, .path, .pathMTU, .destinationQPN, .rqPSN]
            return pair.type == .uc || pair.type == .xrcSend
                ? connected : connected.union([.maxDestinationReadAtomic, .minRNRTimer])
        case (.readyToReceive, .readyToSend):
            if pair.type == .xrcReceive { return [.state, .sqPSN, .timeout] }
            return pair.type == .rc || pair.type == .xrcSend
                ? [.state, .sqPSN, .timeout, .retryCount, .rnrRetry, .maxReadAtomic] : [.state, .sqPSN]
        default: return .state
        }
    }
}
