import Glibc
import Synchronization
import Verbs

/// Memory that the program allocated itself, as malloc(3) gives it: not on a page boundary.
final class OwnMemory {
    let bytes: UnsafeMutableRawBufferPointer

    init(byteCount: Int) {
        bytes = UnsafeMutableRawBufferPointer(start: calloc(1, byteCount)!, count: byteCount)
    }

    deinit { free(bytes.baseAddress) }
}

/// Memory that nobody may change any more: a region that was deregistered, or the buffers of a destroyed queue pair.
struct ClosedMemory {
    let region: MemoryRegion
    let number: UInt64
    let promise: String

    /// Writes a pattern right after the verb has returned.
    ///
    /// A copy that is still going on would mostly be overwritten by the pattern, unnoticed. So first a word at the end of
    /// each page is changed, from the last page to the first, since copies go up; they are compared after a moment.
    init(_ region: MemoryRegion, number: UInt64, promise: String) throws {
        self.region = region
        self.number = number
        self.promise = promise
        let base = region.unsafeBytes.baseAddress!
        let ends = stride(from: region.byteCount & ~7 - 8, to: 0, by: -4096)
        for offset in ends { base.storeBytes(of: number ^ UInt64(offset), toByteOffset: offset, as: UInt64.self) }
        usleep(200)
        for offset in ends {
            let found = base.load(fromByteOffset: offset, as: UInt64.self)
            guard found == number ^ UInt64(offset) else { throw Failure("\(promise), byte \(offset) was changed") }
        }
        for start in stride(from: 0, to: region.byteCount, by: Pattern.maximum) {
            Pattern.fill(base + start, min(Pattern.maximum, region.byteCount - start), number: number)
        }
    }

    func check() throws {
        let base = UnsafeRawPointer(region.unsafeBytes.baseAddress!)
        for start in stride(from: 0, to: region.byteCount, by: Pattern.maximum) {
            let count = min(Pattern.maximum, region.byteCount - start)
            if let offset = Pattern.difference(base + start, count, number: number) {
                throw Failure("\(promise), byte \(start + offset) was changed later")
            }
        }
    }
}

/// The memory of a lane that the peer accesses.
enum Target {
    static let word = 0
    static let swapped = 8
    static let verified = 16
    static let shared = 24
    static let constants = 4096
    static let slots = constants + Pattern.maximum
    /// Places of WRITEs with immediate data.
    static let immediateSlots = 2

    static func byteCount(_ epoch: Epoch) -> Int { slots + (epoch.depth + immediateSlots) * Pattern.maximum }
}

/// One connection: a queue pair, the memory that the peer accesses, and the buffers of its own requests.
final class Lane {
    private enum Kind: UInt64 { case send, write, immediate, constants, closed }

    private enum Operation {
        case send(UInt64)
        case write(UInt64, Int)
        /// A WRITE that has completed, and is read back; `at`: where to.
        case readBack(UInt64, Int, at: Int)
        case immediate
        case read(from: Int, Int)
        case add(UInt64, expected: UInt64)
        case swap(expected: UInt64)
        case addToShared(UInt64)
        case credit
    }

    static let receives = 3
    /// Added to the buffer's number in the ID of a receive.
    static let receiveID: UInt64 = 1 << 32
    /// Added to the ID of a request whose successful completion is not reported.
    private static let silentID: UInt64 = 1 << 16

    let index: Int
    private let role: UInt64
    private let epoch: Epoch
    private var random: Random
    private(set) var pair: QueuePair?
    private(set) var number: UInt32
    private let local: MemoryRegion
    private var target: MemoryRegion
    private var remote = RemoteMemory(address: 0, rkey: 0, byteCount: 0)
    private var remoteShared = RemoteMemory(address: 0, rkey: 0, byteCount: 0)
    private var operations: [Operation?]
    private(set) var outstanding = 0
    private var word: UInt64 = 0
    private var swapped: UInt64 = 0
    private var creditedWrites = 0
    private(set) var report = Report.Lane()
    private(set) var operationCount = 0
    private(set) var byteCount = 0
    private(set) var closed: [ClosedMemory] = []
    private var isRevoked = false
    private let revokesByAccess: Bool
    private(set) var busy = 0

    var hasFailed: Bool { report.status != 0 }

    init(
        _ index: Int, role: Int, _ epoch: Epoch, _ domain: ProtectionDomain, _ queue: borrowing CompletionQueue
    ) throws {
        self.index = index
        self.role = UInt64(role)
        self.epoch = epoch
        random = Random(seed: epoch.number &* 256 &+ UInt64(2 * index + role))
        let access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic]
        // Both kinds of memory in each combination of the two peers.
        func memory(_ byteCount: Int, _ access: AccessFlags, isOwn: Bool) throws -> MemoryRegion {
            guard isOwn else { return try domain.makeMemoryRegion(byteCount: byteCount, access: access) }
            let own = OwnMemory(byteCount: byteCount)
            return try domain.unsafeRegister(own.bytes, access: access, owner: own)
        }
        target = try memory(Target.byteCount(epoch), access, isOwn: (index >> role) & 1 == 1)
        local = try memory((epoch.depth + Self.receives) * Pattern.maximum, .localWrite, isOwn: index & 1 == role)
        operations = Array(repeating: nil, count: epoch.depth)
        revokesByAccess = random.once(in: 3)
        let pair = try domain.makeQueuePair(
            .reliableConnection, completions: queue,
            capabilities: QueuePair.Capabilities(
                maxSendWR: UInt32(2 * epoch.depth), maxReceiveWR: UInt32(Self.receives)))
        number = pair.number
        self.pair = consume pair
        Pattern.fill(
            target.unsafeBytes.baseAddress! + Target.constants, Pattern.maximum,
            number: number(.constants, 0, from: self.role))
    }

    /// The number of the Nth message of a kind from the peer with that role.
    private func number(_ kind: Kind, _ count: Int, from role: UInt64) -> UInt64 {
        Random.mix(epoch.number &* 64 &+ UInt64(index) &* 16 &+ role &* 8 &+ kind.rawValue) &+ UInt64(count)
    }

    // MARK: Connection

    func endpoint() throws -> Endpoint { try pair!.endpoint(memory: target.remote) }

    func connect(to peer: Endpoint, shared: RemoteMemory?) throws {
        guard let memory = peer.memory, let shared else { throw Failure("the endpoint has no memory") }
        remote = memory
        remoteShared = shared
        var options = ConnectionOptions()
        // 4.096 µs × 2^17, half a second: a living peer responds within it on a busy machine.
        options.timeout = LocalACKTimeout(rawValue: 17)
        options.retryCount = epoch.retries
        try pair!.initialize(options: options)
        for buffer in 0..<Self.receives { try postReceive(buffer) }
        try pair!.connect(to: peer, options: options)
    }

    private func buffer(_ slot: Int) -> UnsafeMutableRawPointer {
        local.unsafeBytes.baseAddress! + slot * Pattern.maximum
    }

    private func postReceive(_ buffer: Int) throws {
        let start = (epoch.depth + buffer) * Pattern.maximum
        try pair!.postReceive(local.sge(start..<start + Pattern.maximum), id: Self.receiveID + UInt64(buffer))
    }

    // MARK: Requests

    /// Fills the send queue.
    func post() throws {
        guard pair != nil, !hasFailed else { return }
        for slot in operations.indices where operations[slot] == nil { try post(slot) }
    }

    private func post(_ slot: Int) throws {
        let start = slot * Pattern.maximum
        switch Int.random(in: 0..<(epoch.large ? 9 : 14), using: &random) {
        case 0, 1:
            let number = number(.send, report.sendsPosted, from: role)
            let size = Pattern.size(number, large: epoch.large)
            Pattern.fill(buffer(slot), size, number: number)
            let operation: SendOperation =
                number & 1 == 0 ? .send : .send(immediate: UInt32(truncatingIfNeeded: number))
            try send(operation, slot, start..<start + size, .send(number))
            report.sendsPosted += 1
        case 2, 3, 4:
            let number = number(.write, operationCount, from: role) &+ UInt64(slot) << 32
            let size = Pattern.size(number, large: epoch.large)
            Pattern.fill(buffer(slot), size, number: number)
            let place = try remoteRange(Target.slots + start, size)
            guard size <= Pattern.maximum / 2, random.once(in: 2) else {
                return try send(.write(to: place), slot, start..<start + size, .write(number, size))
            }
            // Both at once: the READ returns what the WRITE before it has written.
            try pair!.postSend(
                .write(to: place), local.sge(start..<start + size), id: UInt64(slot) + Self.silentID, flags: [])
            try readBack(slot, number, size, at: Pattern.maximum / 2)
        case 5:
            guard report.writesPosted < creditedWrites + Target.immediateSlots else {
                let credit = try remoteRange(Target.verified, 8)
                return try send(.fetchAndAdd(at: credit, adding: 0), slot, start..<start + 8, .credit)
            }
            let number = number(.immediate, report.writesPosted, from: role)
            let size = Pattern.size(number, large: epoch.large)
            Pattern.fill(buffer(slot), size, number: number)
            let place = try remoteRange(immediateOffset(report.writesPosted), size)
            try send(
                .write(to: place, immediate: UInt32(truncatingIfNeeded: report.writesPosted)), slot,
                start..<start + size, .immediate)
            report.writesPosted += 1
        case 6, 7, 8:
            let size = Pattern.size(random.next(), large: epoch.large)
            let from = Int.random(in: 0...Pattern.maximum - size, using: &random)
            memset(buffer(slot), 0, size)
            try send(
                .read(from: try remoteRange(Target.constants + from, size)), slot, start..<start + size,
                .read(from: from, size))
        case 9, 10:
            let increment = random.next() >> 20
            try send(
                .fetchAndAdd(at: try remoteRange(Target.word, 8), adding: increment), slot, start..<start + 8,
                .add(increment, expected: word))
            word &+= increment
        case 11 where epoch.hasSharedWord:
            let increment = random.next() >> 20
            let place = try remoteShared.subrange(UInt64(Target.shared)..<UInt64(Target.shared + 8))
            try send(.fetchAndAdd(at: place, adding: increment), slot, start..<start + 8, .addToShared(increment))
        default:
            let desired = random.next()
            let isWrong = random.once(in: 4)
            try send(
                .compareAndSwap(
                    at: try remoteRange(Target.swapped, 8), expected: isWrong ? ~swapped : swapped, desired: desired),
                slot, start..<start + 8, .swap(expected: swapped))
            if !isWrong { swapped = desired }
        }
    }

    private func remoteRange(_ start: Int, _ count: Int) throws -> RemoteMemory {
        try remote.subrange(UInt64(start)..<UInt64(start + count))
    }

    private func immediateOffset(_ count: Int) -> Int {
        Target.slots + (epoch.depth + count % Target.immediateSlots) * Pattern.maximum
    }

    private func send(
        _ operation: SendOperation, _ slot: Int, _ range: Range<Int>, _ entry: Operation
    ) throws {
        try pair!.postSend(operation, local.sge(range), id: UInt64(slot))
        operations[slot] = entry
        outstanding += 1
    }

    private func readBack(_ slot: Int, _ number: UInt64, _ size: Int, at: Int) throws {
        let start = slot * Pattern.maximum + at
        memset(local.unsafeBytes.baseAddress! + start, 0, size)
        try send(
            .read(from: try remoteRange(Target.slots + slot * Pattern.maximum, size)), slot, start..<start + size,
            .readBack(number, size, at: at))
    }

    // MARK: Completions

    func complete(_ completion: WorkCompletion) throws {
        if completion.id >= Self.receiveID { return try received(completion) }
        if !completion.isSuccess && report.status == 0 { report.status = completion.status.rawValue }
        guard completion.id < Self.silentID else { return }
        let slot = Int(completion.id)
        guard let operation = operations[slot] else { throw failure("request \(slot) completed twice") }
        operations[slot] = nil
        outstanding -= 1
        guard completion.isSuccess else {
            if case .add(let increment, _) = operation { report.doubtful.append(increment) }
            return
        }
        guard !hasFailed else { throw failure("a request succeeded after one that failed") }
        operationCount += 1
        try verify(operation, slot)
    }

    private func verify(_ operation: Operation, _ slot: Int) throws {
        let returned = buffer(slot).load(as: UInt64.self)
        switch operation {
        case .send: report.sendsCompleted += 1
        case .immediate: report.writesCompleted += 1
        case .write(let number, let size): try readBack(slot, number, size, at: 0)
        case .readBack(let number, let size, let at):
            if let offset = Pattern.difference(buffer(slot) + at, size, number: number) {
                throw failure("READ of \(size) bytes after a WRITE returned a wrong byte \(offset)")
            }
            byteCount += 2 * size
        case .read(let from, let size):
            let number = number(.constants, 0, from: 1 - role)
            if let offset = Pattern.difference(buffer(slot), size, number: number, from: from) {
                throw failure("READ of \(size) bytes from byte \(from) returned a wrong byte \(offset)")
            }
            byteCount += size
        case .add(let increment, let expected):
            guard returned == expected else { throw failure("fetch-add returned \(returned), not \(expected)") }
            report.added &+= increment
        case .swap(let expected):
            guard returned == expected else { throw failure("compare-swap returned \(returned), not \(expected)") }
        case .addToShared(let increment): report.addedToShared &+= increment
        case .credit:
            guard (creditedWrites...report.writesPosted).contains(Int(clamping: returned)) else {
                throw failure("the peer has verified \(returned) WRITEs of \(report.writesPosted)")
            }
            creditedWrites = Int(returned)
        }
    }

    private func received(_ completion: WorkCompletion) throws {
        // A failed receive of a connection that has ended.
        guard completion.isSuccess else {
            if completion.status == .flushed { return }
            throw failure("a receive completed with \(completion.status)")
        }
        let index = Int(completion.id - Self.receiveID)
        if completion.opcode == .receive {
            let number = number(.send, report.sendsReceived, from: 1 - role)
            let size = Pattern.size(number, large: epoch.large)
            let immediate = number & 1 == 0 ? nil : UInt32(truncatingIfNeeded: number)
            guard completion.byteCount == size, completion.immediate == immediate else {
                throw failure(
                    "message \(report.sendsReceived) has \(completion.byteCount) bytes instead of \(size), or a wrong immediate"
                )
            }
            if let offset = Pattern.difference(buffer(epoch.depth + index), size, number: number) {
                throw failure("message \(report.sendsReceived) of \(size) bytes has a wrong byte \(offset)")
            }
            report.sendsReceived += 1
            byteCount += size
        } else {
            try receivedWrite(completion)
        }
        operationCount += 1
        if pair != nil { try postReceive(index) }
    }

    private func receivedWrite(_ completion: WorkCompletion) throws {
        let count = report.writesReceived
        let number = number(.immediate, count, from: 1 - role)
        let size = Pattern.size(number, large: epoch.large)
        guard completion.immediate == UInt32(truncatingIfNeeded: count), completion.byteCount == size else {
            throw failure(
                "WRITE with immediate \(completion.immediate ?? 0) of \(completion.byteCount) bytes, not \(count) of \(size)"
            )
        }
        report.writesReceived += 1
        if isRevoked { return }
        let place = target.unsafeBytes.baseAddress! + immediateOffset(count)
        if let offset = Pattern.difference(place, size, number: number) {
            throw failure("WRITE \(count) with immediate, of \(size) bytes, has a wrong byte \(offset)")
        }
        try target.storeReleasing(UInt64(report.writesReceived), at: Target.verified)
        byteCount += size
    }

    private func failure(_ text: String) -> Failure { Failure("lane \(index): \(text)") }

    // MARK: Memory and queue pairs that go

    /// Takes the peer's rights to the target memory. Returns false when the verb answered EBUSY, or ibv_rereg_mr EINVAL: a
    /// peer that was stopped is in the middle of a copy. The region is then what it was.
    func revoke() throws -> Bool {
        if isRevoked { return true }
        do {
            if revokesByAccess {
                target = try target.reregister(access: .localWrite)
            } else {
                try target.close()
            }
        } catch {
            guard error.errno == (revokesByAccess ? .invalidArgument : .resourceBusy) else { throw error }
            busy += 1
            return false
        }
        isRevoked = true
        let verb = revokesByAccess ? "ibv_rereg_mr" : "ibv_dereg_mr"
        closed.append(
            try ClosedMemory(
                target, number: number(.closed, 0, from: role), promise: "lane \(index): after \(verb) has returned"))
        return true
    }

    /// Destroys the queue pair: neither the peer's requests nor the responses to its own change memory any more.
    func destroy() throws {
        guard let pair = pair.take() else { return }
        try pair.close()
        outstanding = 0
        report.doubtful += operations.compactMap { operation -> (UInt64, UInt64)? in
            guard case .add(let increment, let expected) = operation else { return nil }
            return (expected, increment)
        }.sorted { $0.0 < $1.0 }.map(\.1)
        operations = operations.map { _ in nil }
        // Its own status, so that nothing is posted.
        if report.status == 0 { report.status = WorkCompletion.Status.flushed.rawValue }
        let promise = "lane \(index): after ibv_destroy_qp has returned"
        closed.append(
            try ClosedMemory(local, number: number(.closed, 1, from: role), promise: "\(promise), in its buffers"))
        if !isRevoked && !epoch.hasSharedWord {
            closed.append(
                try ClosedMemory(
                    target, number: number(.closed, 2, from: role), promise: "\(promise), in its target memory"))
            isRevoked = true
        }
    }

    // MARK: The end of an epoch

    /// Adds to the shared word as the application does, by an instruction of the processor.
    func addToOwnSharedWord(_ increment: UInt64) {
        atomic(Target.shared).pointee.wrappingAdd(increment, ordering: .relaxed)
    }

    var sharedWord: UInt64 { atomic(Target.shared).pointee.load(ordering: .relaxed) }

    private func atomic(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (target.unsafeBytes.baseAddress! + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    func finalReport() throws -> Report.Lane {
        for memory in closed { try memory.check() }
        report.word = isRevoked ? nil : atomic(Target.word).pointee.load(ordering: .relaxed)
        return report
    }
}
