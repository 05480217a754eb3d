import Glibc
import RoCETransport

/// One direction of a reliable connection: the work requests of one side, and what must become of them. The model of
/// RC is short: work requests are carried out once each and in order; each ends well, or one ends with an error that
/// has a reason and all after it are flushed.
final class ReliableStream {
    let name: String
    let sender: Host
    let receiver: Host
    let pair: QueuePair
    let peer: QueuePair
    let remote: RemoteMemory
    var works: [Work] = []
    private(set) var posted = 0
    /// Work requests known to have ended well.
    private(set) var done = 0
    /// The first that did not.
    private(set) var failure: (index: Int, status: CompletionStatus)?
    private var flushed = 0
    /// The works that take a receive, in order, and how many of them arrived.
    private(set) var arrivals: [Int] = []
    private(set) var arrived = 0
    private(set) var receiveFailure: CompletionStatus?
    /// Receives of this stream's own queue: buffers by number.
    var receives: [[UnsafeMutableRawBufferPointer]] = []
    private(set) var postedReceives = 0
    private var flushedReceives = 0
    /// A shared receive queue's buffers by number, when there is one.
    var sharedReceives: [[UnsafeMutableRawBufferPointer]]?
    let capacity: Int
    let signalAll: Bool

    init(
        name: String, sender: Host, receiver: Host, pair: QueuePair, peer: QueuePair, remote: RemoteMemory,
        signalAll: Bool
    ) {
        self.name = name
        self.sender = sender
        self.receiver = receiver
        self.pair = pair
        self.peer = peer
        self.remote = remote
        self.signalAll = signalAll
        capacity = Int(pair.capabilities.sendWorkRequests)
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
            var request = SendWorkRequest(id: UInt64(posted), opcode: work.opcode, flags: work.flags)
            request.immediate = work.immediate
            request.compareAdd = work.compareAdd
            request.swap = work.swap
            request.remoteKey = work.fault == .remoteKey ? receiver.key ^ 0x55 : receiver.key
            request.remoteAddress = address(of: work)
            var elements = work.pieces.map { sender.element($0) }
            if work.fault == .localKey { for index in elements.indices { elements[index].key ^= 1 } }
            let result = pair.stageSend(request, elements: elements, count: elements.count)
            if result == .noMemory {
                try require(
                    posted - done - flushed >= capacity, "\(name): queue full with \(posted - done) outstanding")
                return false
            }
            try require(result == .success, "\(name): post \(posted) refused with \(result.rawValue)")
            // Inline data was copied; what the program does with its memory no longer matters.
            if work.flags.contains(.inline) { work.pieces.forEach { memset($0.baseAddress!, 0xEE, $0.count) } }
            if work.isAtomic && work.fault == nil { work.original = remote.apply(work) }
            works[posted] = work
            posted += 1
        }
        return true
    }

    private func address(of work: Work) -> UInt64 {
        if work.fault == .remoteRange {
            return UInt64(UInt(bitPattern: receiver.memory.baseAddress! + receiver.memory.count))
        }
        if work.isAtomic {
            return UInt64(UInt(bitPattern: remote.words)) + UInt64(work.remoteOffset)
                + (work.fault == .alignment ? 4 : 0)
        }
        return UInt64(UInt(bitPattern: remote.window.baseAddress!)) + UInt64(work.remoteOffset)
    }

    func postReceives(_ count: Int) throws {
        defer { peer.commitReceives() }
        for _ in 0..<count where postedReceives < receives.count {
            var elements = receives[postedReceives].map { receiver.element($0) }
            if postedReceives < arrivals.count, works[arrivals[postedReceives]].fault == .receiveKey {
                for index in elements.indices { elements[index].key ^= 1 }
            }
            let result = peer.stageReceive(id: UInt64(postedReceives), elements: elements, count: elements.count)
            if result == .noMemory { return }
            try require(result == .success, "\(name): receive refused with \(result.rawValue)")
            postedReceives += 1
        }
    }

    var hasReceivesToPost: Bool { postedReceives < receives.count }

    // MARK: - What comes of it

    func sendCompleted(_ completion: WorkCompletion) throws {
        let index = Int(completion.id)
        try require(index < posted, "\(name): completion of \(index), which was not posted")
        if completion.status == .flushed || failure != nil {
            try require(
                completion.status == .flushed, "\(name): \(index) ended with \(completion.status) after a failure")
            let expected = failure.map { $0.index + 1 + flushed } ?? done + flushed
            if failure == nil && flushed == 0 {
                // Those in between were not signaled and ended well.
                try succeed(upTo: index)
            } else {
                try require(index == expected, "\(name): flushed \(index) where \(expected) was next")
            }
            flushed += 1
            return
        }
        try require(flushed == 0 && index >= done, "\(name): completion of \(index) out of order")
        if completion.status == .success {
            try require(
                signalAll || works[index].flags.contains(.signaled), "\(name): \(index) completed and was not signaled")
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
        case .compareSwap: expected = .compareSwap
        case .fetchAdd: expected = .fetchAdd
        case .write, .writeWithImmediate: expected = .write
        default: expected = .send
        }
        try require(completion.opcode == expected, "\(name): opcode \(completion.opcode) for \(work.opcode)")
        try require(completion.queuePair == pair.number, "\(name): completion of another queue pair")
        if work.opcode == .read { try require(completion.byteCount == UInt32(work.size), "\(name): READ length") }
    }

    private func succeed(upTo end: Int, signaled: Int? = nil) throws {
        while done < end {
            let work = works[done]
            try require(
                done == signaled || !(signalAll || work.flags.contains(.signaled)),
                "\(name): \(done) was signaled and has no completion")
            try require(work.fault == nil, "\(name): \(done) ended well with fault \(work.fault!)")
            if work.opcode == .read { try checkRead(done) }
            if work.isAtomic {
                let answer = join(work)
                let value = answer.loadUnaligned(as: UInt64.self)
                try require(value == work.original, "\(name): atomic \(done) found \(value), not \(work.original)")
            }
            done += 1
        }
    }

    /// A READ may see WRITEs that were posted after it, unless a fence is between them (IBTA volume 1, 10.8.3.3,
    /// table "Work Request Operation Ordering").
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
            "\(name): READ \(index) of \(work.size) bytes at \(work.remoteOffset) brought wrong data")
    }

    private func join(_ work: Work) -> UnsafeRawBufferPointer {
        if work.pieces.count == 1 { return UnsafeRawBufferPointer(work.pieces[0]) }
        // Room for the joined bytes was taken with the work request.
        let target = UnsafeMutableRawBufferPointer(mutating: work.payload)
        var offset = 0
        for piece in work.pieces where piece.count > 0 {
            memcpy(target.baseAddress! + offset, piece.baseAddress!, piece.count)
            offset += piece.count
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
        try require(work.fault == nil, "\(name): received in spite of fault")
        if sharedReceives == nil {
            try require(completion.id == UInt64(arrived), "\(name): receive \(completion.id) where \(arrived) was next")
        }
        let buffers = (sharedReceives ?? receives)[Int(completion.id)]
        try checkArrival(completion, work, buffers)
        arrived += 1
        // Everything before it has happened too.
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
        try require(completion.opcode == (work.isSend ? .receive : .receiveWriteImmediate), "\(name): receive opcode")
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

    // MARK: - The end

    /// What must hold when nothing happens any more.
    /// - Parameter mayBreak: the connection had a reason to fail.
    func checkEnd(mayBreak: Bool) throws {
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
                try require(remote.words[index] == value, "\(name): word \(index) is not what the atomics leave")
            }
        }
        try require(remote.holds(after: done, upTo: posted, works), "\(name): the remote memory is wrong in the end")
        if peer.state == .error && sharedReceives == nil {
            let used = arrived + (receiveFailure == nil ? 0 : 1)
            try require(used + flushedReceives == postedReceives, "\(name): receives were not flushed")
        }
    }

    /// A send that is complete has arrived; checked while things are under way.
    func checkOrder() throws {
        let owed = arrivals.prefix { $0 < done }.count
        try require(arrived >= owed, "\(name): \(owed) complete sends, \(arrived) arrived")
    }
}
