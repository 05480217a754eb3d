import RoCETransport
import TestSupport

/// Random reliable connections: hosts, a network, and work requests of all opcodes, all drawn from one seed.
final class ReliableScenario {
    private var random: SplitMix
    private let network: Network
    let hosts: [Host]
    private let oracle = Arena(6 << 20)
    private var streams: [ReliableStream] = []
    private var links: [(left: ReliableStream, right: ReliableStream, connection: Connection, faulty: Bool)] = []
    private var shared:
        [(queue: SharedReceiveQueue, host: Host, buffers: [[UnsafeMutableRawBufferPointer]], posted: Int)] = []
    private let mtu: UInt32
    private let usesShared: Bool
    /// XRC in place of RC: each direction is a connection of its own, and each host has two shared receive queues.
    private let isExtended: Bool
    private var xrcDomains: [ObjectIdentifier: XRCDomain] = [:]
    private let hasFaults: Bool
    private let kills: Bool
    private let resets: Bool
    /// Whether the hosts are engines of one host, which access each other's memory, and sometimes cannot.
    private let isLocal: Bool
    private var reach = Neighbor.Reach.none
    private var firstViolation: (any Error)?
    private(set) var seenEvents: [UInt32: [AsyncEventType]] = [:]

    /// What the hosts did, for a comparison with the same history in another configuration: see `Network.trace`. The
    /// completions are in it too.
    var trace: [UInt64] { network.trace ?? [] }

    /// The packets that were sent and received in runs.
    var inRuns: (sent: Int, received: Int) { network.inRuns }

    /// - Parameters:
    ///   - acknowledgements: When the engines write acknowledgements.
    ///   - usesShortPath: `Configuration.usesShortPath`. Then packets are also passed in runs.
    ///   - keepsTrace: Whether to fill `trace`.
    init(
        seed: UInt64, isExtended: Bool = false, acknowledgements: AcknowledgementOrder = .first,
        usesShortPath: Bool = true, keepsTrace: Bool = false
    ) throws {
        var random = SplitMix(seed: seed)
        mtu = random.pick([256, 256, 512, 1024, 4096])
        self.isExtended = isExtended
        usesShared = random.chance(20) || isExtended
        hasFaults = random.chance(25)
        kills = random.chance(5)
        resets = !usesShared && random.chance(10)
        isLocal = !kills && random.chance(40)
        let isLocal = isLocal
        let profile = Self.profile(&random)
        hosts = try (1...random.pick([2, 2, 2, 3])).map { number in
            try Host(UInt32(number), seed: random.next(), memory: 3 << 20, completions: 8192, isShared: isLocal) {
                configuration in
                configuration.qpnPrefixBits = isLocal ? 8 : 0
                configuration.qpnPrefix = isLocal ? UInt32(number) : 0
                configuration.maximumWindow = random.pick([1, 2, 8, 64, 256])
                configuration.initialWindow = random.pick([1, 4, 32])
                configuration.maximumPathWindow = random.pick([2, 16, 1024])
                configuration.initialPathWindow = random.pick([2, 8, 64])
                configuration.acknowledgeInterval = random.pick([1, 4, 32])
                configuration.readSegment = random.pick([1, 2, 64])
                configuration.burst = random.pick([1, 8])
                configuration.usesShortPath = usesShortPath
                configuration.heldRequests = random.pick([0, 2, 256, 256])
            }
        }
        network = Network(hosts, seed: random.next(), profile: profile)
        network.acknowledgements = acknowledgements
        network.usesRuns = usesShortPath
        if keepsTrace { network.trace = [] }
        self.random = random
        if isLocal {
            for host in hosts { host.publish() }
            if self.random.chance(50) { reach = .here }
            for index in hosts.indices where self.random.chance(80) { acquaint(index, true) }
        }
        for index in 0..<random.pick([1, 1, 1, 2, 3]) { try connect("connection \(index)") }
        if usesShared { try fillShared() }
        for index in links.indices { start(links[index].left); start(links[index].right) }
    }

    private static func profile(_ random: inout SplitMix) -> NetworkProfile {
        var profile = NetworkProfile()
        if random.chance(25) { return profile }
        profile.loss = random.pick([0, 1, 3, 10])
        profile.duplication = random.pick([0, 1, 10])
        profile.corruption = random.pick([0, 0, 2])
        profile.delay = random.pick([1_000...1_000, 1_000...3_000, 500...20_000])
        return profile
    }

    /// Begins or ends the access of a host to the others, and of the others to it.
    private func acquaint(_ index: Int, _ isNeighbor: Bool) {
        for (other, host) in hosts.enumerated() {
            host.engine.neighbors[index + 1] = isNeighbor ? hosts[index].neighbor(reach) : nil
            if random.chance(50) {
                hosts[index].engine.neighbors[other + 1] = isNeighbor ? host.neighbor(reach) : nil
            }
        }
        guard random.chance(30) else { return }
        network.schedule(after: random.below(200_000)) { [unowned self] in acquaint(index, !isNeighbor) }
    }

    // MARK: - Building

    private func connect(_ name: String) throws {
        let left = random.pick(hosts)
        let right = random.chance(10) ? left : hosts.first { $0 !== left }!
        let reliable = network.profile.isPerfect && !hasFaults && !kills
        var connection = Connection(mtu: mtu)
        connection.psn = random.chance(50) ? 0xFF_FFFF - UInt32(random.below(20)) : UInt32(random.below(1 << 24))
        connection.peerPSN = random.chance(50) ? 0xFF_FFFF - UInt32(random.below(20)) : UInt32(random.below(1 << 24))
        connection.timeout = reliable && random.chance(20) ? 0 : UInt8(random.pick([5, 6, 8]))
        connection.retryCount = 7
        connection.rnrRetry = 7
        connection.minRNRTimer = UInt8(random.within(1...7))
        connection.maxReadAtomic = UInt8(random.pick([1, 2, 4, 16]))
        connection.maxDestinationReadAtomic = connection.maxReadAtomic
        connection.tag = isLocal ? Path.sameHost : 0
        let streams = try makeStreams(name, left, right)
        let faulty = hasFaults && random.chance(70)
        try establish(streams, connection)
        if random.chance(50), !isExtended {
            try bindWindows(of: streams.0)
            try bindWindows(of: streams.1)
        }
        plan(streams.0, faulty: faulty && random.chance(60))
        plan(streams.1, faulty: faulty && random.chance(30))
        links.append((streams.0, streams.1, connection, faulty))
    }

    private func makeStreams(_ name: String, _ left: Host, _ right: Host) throws -> (ReliableStream, ReliableStream) {
        let sqSigAll = random.chance(30)
        let sends = UInt32(random.pick([1, 3, 16, 64]))
        let receives = UInt32(random.pick([2, 16, 64]))
        if isExtended { return try makeExtendedStreams(name, left, right, sends: sends, sqSigAll: sqSigAll) }
        let leftPair = try left.makeQueuePair(
            sends: sends, receives: receives, shared: try sharedQueue(of: left), sqSigAll: sqSigAll)
        let rightPair = try right.makeQueuePair(
            sends: sends, receives: receives, shared: try sharedQueue(of: right), sqSigAll: sqSigAll)
        return (
            try stream("\(name) ->", left, right, leftPair, rightPair, sqSigAll),
            try stream("\(name) <-", right, left, rightPair, leftPair, sqSigAll)
        )
    }

    private func makeExtendedStreams(
        _ name: String, _ left: Host, _ right: Host, sends: UInt32, sqSigAll: Bool
    ) throws -> (ReliableStream, ReliableStream) {
        func make(_ name: String, _ sender: Host, _ receiver: Host) throws -> ReliableStream {
            let domain = try xrcDomains[ObjectIdentifier(receiver)] ?? receiver.openXRCDomain()
            if xrcDomains.updateValue(domain, forKey: ObjectIdentifier(receiver)) == nil {
                for _ in 0..<2 {
                    shared.append((try receiver.makeSharedReceiveQueue(domain, maxWR: 16), receiver, [], 0))
                }
            }
            let result = try stream(
                name, sender, receiver,
                try sender.makeQueuePair(.xrcSend, sends: sends, receives: 0, sqSigAll: sqSigAll),
                try receiver.makeReceiver(domain), sqSigAll)
            result.queues = shared.filter { $0.host === receiver }.map(\.queue)
            return result
        }
        return (try make("\(name) ->", left, right), try make("\(name) <-", right, left))
    }

    /// Binds windows at the receiver of a stream, which the SENDs with invalidate of the stream end. A duplicate that is
    /// executed again would end none, and so fail.
    private func bindWindows(of stream: ReliableStream) throws {
        let bytes = UnsafeMutableRawBufferPointer(rebasing: stream.receiver.memory[..<64])
        for _ in 0..<random.below(8) {
            stream.windows.append(try stream.receiver.bindWindow(on: stream.peer, to: bytes))
        }
    }

    private func stream(
        _ name: String, _ sender: Host, _ receiver: Host, _ pair: QueuePair, _ peer: QueuePair, _ sqSigAll: Bool
    ) throws -> ReliableStream {
        let remote = RemoteMemory(receiver, oracle: oracle, size: random.pick([64, 1024, 8192]), random: &random)
        let stream = try ReliableStream(
            name: name, sender: sender, receiver: receiver, pair: pair, peer: peer, remote: remote,
            sqSigAll: sqSigAll)
        streams.append(stream)
        return stream
    }

    private func establish(_ streams: (ReliableStream, ReliableStream), _ connection: Connection) throws {
        let (left, right) = streams
        try left.sender.connect(left.pair, to: left.receiver.gid, number: left.peer.number, connection)
        try left.receiver.connect(left.peer, to: left.sender.gid, number: left.pair.number, connection.reversed)
        guard isExtended else { return }
        try right.sender.connect(right.pair, to: right.receiver.gid, number: right.peer.number, connection)
        try right.receiver.connect(right.peer, to: right.sender.gid, number: right.pair.number, connection.reversed)
    }

    private func sharedQueue(of host: Host) throws -> SharedReceiveQueue? {
        guard usesShared else { return nil }
        if let found = shared.first(where: { $0.host === host }) { return found.queue }
        let queue = try host.makeSharedReceiveQueue(maxWR: 16)
        shared.append((queue, host, [], 0))
        return queue
    }

    // MARK: - Planning work

    private func plan(_ stream: ReliableStream, faulty: Bool) {
        let count = random.pick([0, 5, 12, 25])
        let fault = faulty && count > 0 ? random.below(count) : -1
        for index in 0..<count { stream.add(makeWork(stream, isLast: index == count - 1, faulty: index == fault)) }
        guard !usesShared else { return }
        for index in stream.arrivals + (random.chance(30) ? [-1] : []) {
            var size = index < 0 ? 8 : stream.works[index].size
            if index >= 0, stream.works[index].fault == .receiveTooSmall {
                size -= 1
            } else {
                size += random.pick([0, 0, 5])
            }
            if index >= 0, !stream.works[index].isSend { size = 0 }
            stream.receives.append(take(size, of: stream.receiver))
        }
    }

    private func makeWork(_ stream: ReliableStream, isLast: Bool, faulty: Bool) -> Work {
        if let work = makeWindowWork(stream, isLast: isLast, faulty: faulty) { return work }
        var opcode = random.pick([
            WorkRequestOpcode.send, .send, .sendWithImmediate, .write, .write, .writeWithImmediate, .read, .read,
            .compareAndSwap, .fetchAndAdd, .atomicWrite, .flush,
        ])
        if isExtended && (opcode == .atomicWrite || opcode == .flush) { opcode = .fetchAndAdd }
        if opcode == .flush { return makeFlush(stream, isLast: isLast, faulty: faulty) }
        var work = Work(
            opcode: opcode, flags: [], size: 0, buffers: [], payload: UnsafeRawBufferPointer(start: nil, count: 0),
            remoteOffset: 0, immediate: UInt32(truncatingIfNeeded: random.next()), compareAdd: random.next() & 0xFF,
            swap: random.next())
        if isExtended { work.queue = random.below(2) }
        work.size = work.isAtomic || work.isAtomicWrite ? 8 : makeSize(stream, isSend: work.isSend)
        if faulty { addFault(&work, stream) }
        if work.isAtomic || work.isAtomicWrite {
            work.remoteOffset = 8 * random.below(RemoteMemory.wordCount)
            if random.chance(50) { work.compareAdd = stream.remote.model[work.remoteOffset / 8] }
        } else if !work.isSend {
            work.remoteOffset = random.below(stream.remote.window.count - work.size + 1)
        }
        work.buffers = take(work.size, of: stream.sender)
        let payload = oracle.take(work.size)
        if !work.isAtomic && work.opcode != .read { fill(work.buffers, and: payload) }
        work.payload = UnsafeRawBufferPointer(payload)
        work.flags = makeFlags(work, stream, isLast: isLast)
        return work
    }

    /// A FLUSH of a part of the stream's window.
    private func makeFlush(_ stream: ReliableStream, isLast: Bool, faulty: Bool) -> Work {
        let length = random.below(stream.remote.window.count) + 1
        var work = Work(
            opcode: .flush, flags: [], size: 0, buffers: [], payload: UnsafeRawBufferPointer(start: nil, count: 0),
            remoteOffset: random.below(stream.remote.window.count - length + 1), immediate: 0,
            compareAdd: UInt64(length), swap: 1)
        if faulty { work.fault = random.pick([.rkey, .remoteRange]) }
        work.flags = makeFlags(work, stream, isLast: isLast)
        return work
    }

    /// A bind, a local invalidate, or a SEND with invalidate of a window that is bound at the receiver.
    private func makeWindowWork(_ stream: ReliableStream, isLast: Bool, faulty: Bool) -> Work? {
        guard !faulty, random.chance(20) else { return nil }
        var work = Work(
            opcode: .bindMemoryWindow, flags: [], size: 0, buffers: [],
            payload: UnsafeRawBufferPointer(start: nil, count: 0), remoteOffset: 0, immediate: 0, compareAdd: 0, swap: 0
        )
        if random.chance(50), let key = stream.windows.popLast() {
            work.opcode = .sendWithInvalidate
            work.immediate = key
            work.size = makeSize(stream, isSend: true)
            work.buffers = take(work.size, of: stream.sender)
            let payload = oracle.take(work.size)
            fill(work.buffers, and: payload)
            work.payload = UnsafeRawBufferPointer(payload)
        } else if stream.ownWindow.isBound {
            work.opcode = .localInvalidate
            work.immediate = stream.ownWindow.key
            stream.ownWindow.isBound = false
        } else {
            work.windowKey = stream.ownWindow.key
            let key = stream.ownWindow.key
            stream.ownWindow = (key & ~0xFF | (key &+ 1) & 0xFF, true)
        }
        work.flags = makeFlags(work, stream, isLast: isLast)
        return work
    }

    private func makeSize(_ stream: ReliableStream, isSend: Bool) -> Int {
        let mtu = Int(self.mtu)
        let size = random.pick([0, 1, 4, 7, 8, mtu - 1, mtu, mtu + 1, 2 * mtu, random.below(6 * mtu)])
        return isSend ? size : min(size, stream.remote.window.count)
    }

    private func addFault(_ work: inout Work, _ stream: ReliableStream) {
        if work.size == 0 { work.size = 1 }
        var faults: [Fault] = [.localKey]
        if work.isAtomic || work.isAtomicWrite { faults.append(.alignment) }
        if !work.isSend { faults += [.rkey, .remoteRange, .rkey] }
        if work.isSend && !usesShared { faults += [.receiveTooSmall, .receiveKey, .receiveTooSmall] }
        work.fault = random.pick(faults)
    }

    private func makeFlags(_ work: Work, _ stream: ReliableStream, isLast: Bool) -> SendFlags {
        var flags: SendFlags = isLast || random.chance(60) ? .signaled : []
        if random.chance(10) { flags.insert(.fence) }
        if random.chance(10) { flags.insert(.solicited) }
        if work.size <= 64, work.isSend || work.isWrite || work.isAtomicWrite, work.fault != .localKey,
            random.chance(30)
        {
            flags.insert(.inline)
        }
        return flags
    }

    /// Memory for `size` bytes in up to five buffers, some of them empty.
    private func take(_ size: Int, of host: Host) -> [UnsafeMutableRawBufferPointer] {
        var left = size
        var buffers: [UnsafeMutableRawBufferPointer] = []
        for _ in 0..<random.pick([0, 0, 0, 1, 3]) {
            let part = random.below(left + 1)
            buffers.append(host.take(part))
            left -= part
        }
        if left > 0 || buffers.isEmpty && random.chance(50) { buffers.append(host.take(left)) }
        return buffers
    }

    private func fill(_ buffers: [UnsafeMutableRawBufferPointer], and payload: UnsafeMutableRawBufferPointer) {
        random.fill(payload)
        var offset = 0
        for buffer in buffers where buffer.count > 0 {
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: payload[offset..<offset + buffer.count]))
            offset += buffer.count
        }
    }

    private func fillShared() throws {
        for index in shared.indices {
            let mine = streams.filter { $0.receiver === shared[index].host }
            let count = mine.reduce(3) { count, stream in
                count
                    + stream.arrivals.count {
                        stream.queues.isEmpty || stream.queues[stream.works[$0].queue] == shared[index].queue
                    }
            }
            for place in 0..<count {
                let buffers = take(6 * Int(mtu), of: shared[index].host)
                shared[index].buffers.append(buffers)
                for stream in mine {
                    stream.sharedReceives = (stream.sharedReceives ?? [:]).merging([receiveID(index, place): buffers]) {
                        $1
                    }
                }
            }
        }
    }

    // MARK: - Running

    private func attempt(_ body: () throws -> Void) {
        guard firstViolation == nil else { return }
        do { try body() } catch { firstViolation = error }
    }

    private func start(_ stream: ReliableStream) {
        network.schedule(after: random.below(50_000)) { [unowned self] in post(stream) }
        if !usesShared {
            network.schedule(after: random.below(100_000)) { [unowned self] in postReceives(stream) }
        }
    }

    private func isCurrent(_ stream: ReliableStream) -> Bool { streams.contains { $0 === stream } }

    private func isDead(_ stream: ReliableStream) -> Bool {
        network.dead.contains { hosts[$0] === stream.sender || hosts[$0] === stream.receiver }
    }

    private func post(_ stream: ReliableStream) {
        guard isCurrent(stream), stream.pair.state != .reset else { return }
        attempt { _ = try stream.post(random.pick([1, 2, 10])) }
        if stream.pair.state != .error && !stream.isPosted && !isDead(stream) {
            network.schedule(after: random.within(1_000...100_000)) { [unowned self] in post(stream) }
        }
    }

    private func postReceives(_ stream: ReliableStream) {
        guard isCurrent(stream), stream.peer.state != .reset else { return }
        attempt { try stream.postReceives(random.pick([1, 3, 20])) }
        // A full receive queue stays full when the peer sends no more.
        if stream.hasReceivesToPost && stream.peer.state != .error && stream.pair.state != .error && !isDead(stream) {
            network.schedule(after: random.within(1_000...200_000)) { [unowned self] in postReceives(stream) }
        }
    }

    /// The `wr_id` of a receive of a shared receive queue.
    private func receiveID(_ index: Int, _ place: Int) -> UInt64 { UInt64(index) << 32 | UInt64(place) }

    /// - Parameter tries: The number of calls that found the queue full. It stays full when all its queue pairs are in
    ///   ERR.
    private func postShared(_ index: Int, tries: Int = 0) {
        let queue = shared[index].queue
        let before = shared[index].posted
        for _ in 0..<random.pick([1, 4, 16]) where shared[index].posted < shared[index].buffers.count {
            let sgList = shared[index].buffers[shared[index].posted].map { shared[index].host.sge($0) }
            guard
                queue.stageReceive(id: receiveID(index, shared[index].posted), sgList: sgList, count: sgList.count)
                    == .success
            else { break }
            shared[index].posted += 1
        }
        queue.commitReceives()
        if shared[index].posted < shared[index].buffers.count && tries < 500 {
            let failed = shared[index].posted == before ? tries + 1 : 0
            network.schedule(after: random.within(1_000...200_000)) { [unowned self] in postShared(index, tries: failed)
            }
        }
    }

    private func collect() throws {
        for host in hosts {
            for completion in host.poll() {
                network.note(completion)
                let isReceive = completion.opcode.rawValue & 0x80 != 0
                guard
                    let stream = streams.first(where: {
                        isReceive
                            ? $0.peer.number == completion.queuePairNumber && $0.receiver === host
                            : $0.pair.number == completion.queuePairNumber && $0.sender === host
                    })
                else { throw Violation("completion of an unknown queue pair") }
                if isReceive { try stream.receiveCompleted(completion) } else { try stream.sendCompleted(completion) }
            }
            while let event = host.engine.nextEvent() {
                if case .queuePair(let pair, let type) = event { seenEvents[pair.number, default: []].append(type) }
            }
        }
        for stream in streams { try stream.checkOrder() }
    }

    func run() throws {
        for index in shared.indices {
            network.schedule(after: random.below(100_000)) { [unowned self] in postShared(index) }
        }
        if kills {
            network.schedule(after: random.below(300_000)) { [unowned self] in network.dead.insert(hosts.count - 1) }
        }
        if resets { network.schedule(after: random.below(400_000)) { [unowned self] in attempt { try reconnect() } } }
        let limit = network.now + 20_000_000_000
        while network.step(until: limit) {
            try collect()
            if let firstViolation { throw firstViolation }
        }
        try require(network.now < limit - 5_000_000_000, "the simulation does not end")
        try collect()
        for link in links { try checkEnd(link) }
        try checkWindows()
    }

    /// At the end of a history without failures, exactly the windows are bound that nothing invalidated.
    private func checkWindows() throws {
        guard !kills, !resets, streams.allSatisfy({ $0.isComplete && $0.failure == nil }) else { return }
        for host in hosts {
            var bound = 0
            for stream in streams where stream.receiver === host { bound += stream.windows.count }
            for stream in streams where stream.sender === host && stream.ownWindow.isBound { bound += 1 }
            let found = host.engine.boundWindows(of: host.key)
            try require(found == bound, "\(found) windows are bound, and not \(bound)")
        }
    }

    /// Moves both queue pairs of the first connection to RESET while requests are outstanding, and connects them again.
    private func reconnect() throws {
        let old = links[0]
        let (left, right) = (old.left, old.right)
        try collect()
        try left.sender.move(left.pair, to: .reset)
        try right.sender.move(right.pair, to: .reset)
        // Both directions. Packets that arrive meanwhile are for queue pairs in RESET.
        streams.removeAll { $0 === left || $0 === right }
        network.schedule(after: random.below(5_000)) { [unowned self] in
            attempt {
                let new = (
                    try stream("again ->", left.sender, left.receiver, left.pair, left.peer, left.sqSigAll),
                    try stream("again <-", right.sender, right.receiver, right.pair, right.peer, right.sqSigAll)
                )
                var connection = old.connection
                connection.psn = (connection.psn + 0x40_0000) & 0xFF_FFFF
                connection.peerPSN = (connection.peerPSN + 0x40_0000) & 0xFF_FFFF
                try establish(new, connection)
                plan(new.0, faulty: false)
                plan(new.1, faulty: false)
                links[0] = (new.0, new.1, connection, false)
                start(new.0)
                start(new.1)
            }
        }
    }

    // MARK: - Checks

    private(set) var unexplainedRetries = 0

    private func checkEnd(
        _ link: (left: ReliableStream, right: ReliableStream, connection: Connection, faulty: Bool)
    ) throws {
        let isDead = network.dead.contains { hosts[$0] === link.left.sender || hosts[$0] === link.right.sender }
        let hadFault = [link.left, link.right].contains { stream in
            stream.works.prefix(stream.posted).contains { $0.fault != nil }
        }
        for stream in [link.left, link.right] {
            if isDead && hosts[hosts.count - 1] === stream.sender { continue }
            let gaveUp = link.left.failure?.status == .retryExceeded || link.right.failure?.status == .retryExceeded
            let mayBreak = isDead || hadFault || gaveUp && !network.profile.isPerfect
            let receiverIsDead = isDead && hosts[hosts.count - 1] === stream.receiver
            try stream.checkEnd(mayBreak: mayBreak, receiverIsDead: receiverIsDead)
            if gaveUp && !isDead && !hadFault { unexplainedRetries += 1 }
            try checkFailure(stream, isDead: isDead, hadFault: hadFault)
        }
    }

    /// A failed work request has the status of its fault, and the responder reports the event of the specification.
    private func checkFailure(_ stream: ReliableStream, isDead: Bool, hadFault: Bool) throws {
        guard let failure = stream.failure else { return }
        if let fault = stream.works[failure.index].fault {
            // The peer can fail before it responds.
            guard failure.status == fault.status else {
                return try require(failure.status == .retryExceeded, "\(stream.name): \(fault) gave \(failure.status)")
            }
            if let event = fault.event {
                try require(
                    seenEvents[stream.peer.number]?.contains(event) == true, "\(stream.name): no event for \(fault)")
            }
            if let status = fault.receiveStatus {
                try require(stream.receiveFailure == status, "\(stream.name): receive did not fail for \(fault)")
            }
        } else {
            try require(
                failure.status == .retryExceeded,
                "\(stream.name): \(failure.index) failed with \(failure.status) without reason")
        }
    }

    /// The counters of the engines, for checks over many seeds.
    var counters: [Counters] { hosts.map { $0.engine.counters } }
    var packetsCorrupted: Int { network.corrupted }
    var packetsRejected: Int { network.rejected }
    var referencesReceived: Int { network.references }
}
