import Glibc
import RoCETransport

/// One direction of a reliable connection: the work requests of one side, and their expected results. The model of RC:
/// each work request is executed once and in order; all complete successfully, or one completes with an error that has
/// a reason and all later ones are flushed.
final class ReliableStream {
    let name: String
    let sender: Host
    let receiver: Host
    let pair: QueuePair
    let peer: QueuePair
    let remote: RemoteMemory
    var works: [Work] = []
    private(set) var posted = 0
    /// The number of work requests that completed successfully.
    private(set) var done = 0
    /// The first work request that failed.
    private(set) var failure: (index: Int, status: CompletionStatus)?
    private var flushed = 0
    /// The work requests that consume a receive, in order, and the number of those that arrived.
    private(set) var arrivals: [Int] = []
    private(set) var arrived = 0
    private(set) var receiveFailure: CompletionStatus?
    /// The receive work requests of this stream's own queue: buffers by `wr_id`.
    var receives: [[UnsafeMutableRawBufferPointer]] = []
    private(set) var postedReceives = 0
    private var flushedReceives = 0
    /// The buffers of the shared receive queue by `wr_id`, if there is one.
    var sharedReceives: [UInt64: [UnsafeMutableRawBufferPointer]]?
    /// XRC: the shared receive queues of the receiver.
    var queues: [SharedReceiveQueue] = []
    let capacity: Int
    let sqSigAll: Bool
    /// The keys of windows that are bound at the receiver, each for one SEND with invalidate.
    var windows: [UInt32] = []
    /// A window of the sender for binds and local invalidates: its next key, and whether it is bound then.
    var ownWindow: (key: UInt32, isBound: Bool)

    init(
        name: String, sender: Host, receiver: Host, pair: QueuePair, peer: QueuePair, remote: RemoteMemory,
        sqSigAll: Bool
    ) throws {
        ownWindow = (try sender.engine.allocateMemoryWindow(sender.domain, .two), false)
        self.name = name
        self.sender = sender
        self.receiver = receiver
        self.pair = pair
        self.peer = peer
        self.remote = remote
        self.sqSigAll = sqSigAll
        capacity = Int(pair.capabilities.maxSendWR)
    }

    func add(_ work: Work) {
        if work.takesReceive { arrivals.append(works.count) }
        works.append(work)
    }

    var isPosted: Bool { posted == works.count }
    var isComplete: Bool { done == works.count }

    // MARK: - Posting

    /// Posts up to `count` work requests. False when the queue is full.
    func post(_ count: Int) throws -> Bool {
        defer { pair.commitSends() }
        for _ in 0..<count where posted < works.count {
            var work = works[posted]
            var request = SendWQE(id: UInt64(posted), opcode: work.opcode, flags: work.flags)
            request.immediate = work.immediate
            request.compareAdd = work.compareAdd
            request.swap = work.swap
            request.rkey = work.fault == .rkey ? receiver.key ^ 0x55 : receiver.key
            request.remoteAddress = address(of: work)
            if !queues.isEmpty { request.remoteSRQN = queues[work.queue].number ?? 0 }
            if work.opcode == .bindMemoryWindow {
                let window = UnsafeMutableRawBufferPointer(rebasing: sender.memory[..<64])
                request = sender.bindRequest(id: request.id, window: work.windowKey, to: window, flags: work.flags)
            }
            var sgList = work.buffers.map { sender.sge($0) }
            if work.fault == .localKey { for index in sgList.indices { sgList[index].lkey ^= 1 } }
            let result = pair.stageSend(request, sgList: sgList, count: sgList.count)
            if result == .noMemory {
                try require(
                    posted - done - flushed >= capacity, "\(name): queue full with \(posted - done) outstanding")
                return false
            }
            try require(result == .success, "\(name): post \(posted) refused with \(result.rawValue)")
            // Inline data was copied: later changes of the memory have no effect.
            if work.flags.contains(.inline) { work.buffers.forEach { memset($0.baseAddress!, 0xEE, $0.count) } }
            if (work.isAtomic || work.isAtomicWrite) && work.fault == nil { work.original = remote.apply(work) }
            works[posted] = work
            posted += 1
        }
        return true
    }

    private func address(of work: Work) -> UInt64 {
        if work.fault == .remoteRange {
            return UInt64(UInt(bitPattern: receiver.memory.baseAddress! + receiver.memory.count))
        }
        if work.isAtomic || work.isAtomicWrite {
            return UInt64(UInt(bitPattern: remote.words)) + UInt64(work.remoteOffset)
                + (work.fault == .alignment ? 4 : 0)
        }
        return UInt64(UInt(bitPattern: remote.window.baseAddress!)) + UInt64(work.remoteOffset)
    }

    func postReceives(_ count: Int) throws {
        defer { peer.commitReceives() }
        for _ in 0..<count where postedReceives < receives.count {
            var sgList = receives[postedReceives].map { receiver.sge($0) }
            if postedReceives < arrivals.count, works[arrivals[postedReceives]].fault == .receiveKey {
                for index in sgList.indices { sgList[index].lkey ^= 1 }
            }
            let result = peer.stageReceive(id: UInt64(postedReceives), sgList: sgList, count: sgList.count)
            if result == .noMemory { return }
            try require(result == .success, "\(name): receive refused with \(result.rawValue)")
            postedReceives += 1
        }
    }

    var hasReceivesToPost: Bool { postedReceives < receives.count }

    // MARK: - Completions

    func sendCompleted(_ completion: WorkCompletion) throws {
        let index = Int(completion.id)
        try require(index < posted, "\(name): completion of \(index), which was not posted")
        if completion.status == .flushed || failure != nil {
            try require(
                completion.status == .flushed, "\(name): \(index) ended with \(completion.status) after a failure")
            let expected = failure.map { $0.index + 1 + flushed } ?? done + flushed
            if failure == nil && flushed == 0 {
                // The work requests before it were not signaled and succeeded.
                try succeed(upTo: index)
            } else {
                try require(index == expected, "\(name): flushed \(index), but \(expected) was the next")
            }
            flushed += 1
            return
        }
        try require(flushed == 0 && index >= done, "\(name): completion of \(index) out of order")
        if completion.status == .success {
            try require(
                sqSigAll || works[index].flags.contains(.signaled), "\(name): \(index) completed and was not signaled")
            try checkFields(completion, works[index])
            try succeed(upTo: index + 1, signaled: index)
        } else {
            try succeed(upTo: index)
            failure = (index, completion.status)
        }
    }

    private func checkFields(_ completion: WorkCompletion, _ work: Work) throws {
        let expected: CompletionOpcode
        switch work.opcode {
        case .read: expected = .read
        case .compareAndSwap: expected = .compareAndSwap
        case .fetchAndAdd: expected = .fetchAndAdd
        case .write, .writeWithImmediate: expected = .write
        case .bindMemoryWindow: expected = .bindMemoryWindow
        case .localInvalidate: expected = .localInvalidate
        case .atomicWrite: expected = .atomicWrite
        case .flush: expected = .flush
        default: expected = .send
        }
        try require(completion.opcode == expected, "\(name): opcode \(completion.opcode) for \(work.opcode)")
        try require(completion.queuePairNumber == pair.number, "\(name): completion of another queue pair")
        if work.opcode == .read { try require(completion.byteCount == UInt32(work.size), "\(name): READ length") }
    }

    private func succeed(upTo end: Int, signaled: Int? = nil) throws {
        while done < end {
            let work = works[done]
            try require(
                done == signaled || !(sqSigAll || work.flags.contains(.signaled)),
                "\(name): \(done) was signaled and has no completion")
            try require(work.fault == nil, "\(name): \(done) succeeded with fault \(work.fault!)")
            if work.opcode == .read { try checkRead(done) }
            if work.opcode == .flush {
                try require(
                    remote.holds(after: done, upTo: posted, works), "\(name): a WRITE before FLUSH \(done) is missing")
            }
            if work.isAtomic {
                let value = join(work).loadUnaligned(as: UInt64.self)
                try require(value == work.original, "\(name): atomic \(done) returned \(value), not \(work.original)")
            }
            done += 1
        }
    }

    /// A READ may return data of WRITEs that were posted after it, unless a fence is between them (IBTA volume 1, table
    /// "Work Request Operation Ordering").
    private func checkRead(_ index: Int) throws {
        let work = works[index]
        guard work.size > 0 else { return }
        var end = index + 1
        while end < posted, !works[end].flags.contains(.fence) { end += 1 }
        let bytes = join(work)
        try require(
            remote.explains(
                bytes.baseAddress!, at: work.remoteOffset..<work.remoteOffset + work.size, after: index, upTo: end,
                works),
            "\(name): READ \(index) of \(work.size) bytes at \(work.remoteOffset) returned wrong data")
    }

    private func join(_ work: Work) -> UnsafeRawBufferPointer {
        if work.buffers.count == 1 { return UnsafeRawBufferPointer(work.buffers[0]) }
        // `payload` has room for the joined bytes.
        let target = UnsafeMutableRawBufferPointer(mutating: work.payload)
        var offset = 0
        for buffer in work.buffers where buffer.count > 0 {
            memcpy(target.baseAddress! + offset, buffer.baseAddress!, buffer.count)
            offset += buffer.count
        }
        return work.payload
    }

    func receiveCompleted(_ completion: WorkCompletion) throws {
        if completion.status == .flushed {
            flushedReceives += 1
            return
        }
        try require(receiveFailure == nil && flushedReceives == 0, "\(name): a receive after a failed one")
        try require(arrived < arrivals.count, "\(name): more receives complete than were sent")
        let work = works[arrivals[arrived]]
        try require(arrivals[arrived] < posted, "\(name): received before it was posted")
        if completion.status != .success {
            try require(
                completion.status == work.fault?.receiveStatus, "\(name): receive ended with \(completion.status)")
            receiveFailure = completion.status
            return
        }
        try require(work.fault == nil, "\(name): received with fault \(work.fault!)")
        if sharedReceives == nil {
            try require(
                completion.id == UInt64(arrived), "\(name): receive \(completion.id), but \(arrived) was the next")
        }
        let buffers = sharedReceives?[completion.id] ?? receives[Int(completion.id)]
        try checkArrival(completion, work, buffers)
        arrived += 1
        // All work requests before it are executed, too.
        try require(
            remote.holds(after: arrivals[arrived - 1] + 1, upTo: posted, works),
            "\(name): memory is wrong when receive \(arrived - 1) completes")
    }

    private func checkArrival(
        _ completion: WorkCompletion, _ work: Work, _ buffers: [UnsafeMutableRawBufferPointer]
    ) throws {
        try require(
            completion.byteCount == UInt32(work.size), "\(name): received \(completion.byteCount) of \(work.size)")
        try require(completion.flags.contains(.withImmediate) == work.hasImmediate, "\(name): immediate flag")
        if work.hasImmediate { try require(completion.immediate == work.immediate, "\(name): immediate data") }
        let invalidates = work.opcode == .sendWithInvalidate
        try require(completion.flags.contains(.withInvalidate) == invalidates, "\(name): invalidate flag")
        if invalidates { try require(completion.immediate == work.immediate, "\(name): invalidated key") }
        try require(
            completion.opcode == (work.isSend ? .receive : .receiveWriteWithImmediate), "\(name): receive opcode")
        guard work.isSend else { return }
        var offset = 0
        for buffer in buffers where offset < work.size && buffer.count > 0 {
            let part = min(buffer.count, work.size - offset)
            try require(
                memcmp(buffer.baseAddress!, work.payload.baseAddress! + offset, part) == 0,
                "\(name): SEND of \(work.size) bytes arrived wrong")
            offset += part
        }
    }

    // MARK: - Final checks

    /// Checks the results when there are no more packets, timers and actions.
    /// - Parameters:
    ///   - mayBreak: The connection had a reason to fail.
    ///   - receiverIsDead: The receiver's engine does not run any more, so it does not flush work requests.
    func checkEnd(mayBreak: Bool, receiverIsDead: Bool) throws {
        let works = self.works
        if let failure {
            let own = works[failure.index].fault?.status
            try require(
                failure.status == own || mayBreak,
                "\(name): \(failure.index) failed with \(failure.status), fault \(String(describing: own))")
            try require(done + 1 + flushed == posted, "\(name): \(posted - done - 1 - flushed) were not flushed")
        } else if flushed > 0 {
            try require(mayBreak, "\(name): flushed without a reason")
            try require(done + flushed == posted, "\(name): \(posted - done - flushed) were not flushed")
        } else if isPosted {
            try require(isComplete, "\(name): \(done) of \(works.count) complete, state \(pair.state)")
        } else {
            try require(mayBreak, "\(name): only \(posted) of \(works.count) could be posted")
        }
        if isComplete {
            try require(arrived == arrivals.count, "\(name): \(arrived) of \(arrivals.count) arrived")
            for (index, value) in remote.model.enumerated() {
                try require(remote.words[index] == value, "\(name): word \(index) is not the result of the atomics")
            }
        }
        try require(remote.holds(after: done, upTo: posted, works), "\(name): the remote memory is wrong at the end")
        if peer.state == .error && sharedReceives == nil && !receiverIsDead {
            let used = arrived + (receiveFailure == nil ? 0 : 1)
            try require(used + flushedReceives == postedReceives, "\(name): receives were not flushed")
        }
    }

    /// A send that is complete has arrived; checked while requests are outstanding.
    func checkOrder() throws {
        let complete = arrivals.prefix { $0 < done }.count
        try require(arrived >= complete, "\(name): \(complete) complete sends, \(arrived) arrived")
    }
}
