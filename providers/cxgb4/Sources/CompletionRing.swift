import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit
import Synchronization

/// The ring of a completion queue: CQEs of 64 or 32 bytes, which the adapter writes and a generation bit marks as written,
/// then a status page.
struct CompletionRing {
    private let start: UnsafeMutableRawPointer
    private let byteCount: Int
    /// The number of CQEs, and the logarithm of their size: 6 or 5.
    private let entries: UInt32
    private let shift: UInt32
    /// The index of the next CQE, the generation bit of the current pass, and the number of all CQEs consumed.
    private var index: UInt32 = 0
    private var generation: UInt64 = 1
    fileprivate(set) var consumed: UInt64 = 0
    /// The last 8 bytes of the last consumed CQE. The adapter has overwritten it if they change.
    private var lastTail: UInt64 = 0
    /// The number of consumed CQEs that are not returned to the adapter yet, and how many are returned at a time.
    private var unreturned: UInt32 = 0
    private let returnedAtATime: UInt32
    /// The GTS register, and its page.
    private let register: UnsafeMutableRawPointer
    private let registerPage: UnsafeMutableRawPointer
    /// The CQ's number in the register.
    private let number: UInt32
    /// Whether the adapter has overwritten a CQE that was not consumed.
    private(set) var isOverrun = false

    /// The sides that have completions without a CQE, in order.
    fileprivate(set) var firstPending: CompletionSidePointer?
    /// All sides of queue pairs that use the completion queue, by QPN, receives before sends.
    fileprivate var firstUser: CompletionSidePointer?

    let context: Cxgb4ContextPointer
    /// The current completion of a batch of extended polling.
    let current: UnsafeMutablePointer<ibv_wc>

    /// - Parameters:
    ///   - memory: The mapped ring, of `byteCount` bytes.
    ///   - entries: The number of CQEs (`size`), at least 16. The status page follows them.
    ///   - number: The bits of `cqid` in `qid_mask`.
    init(
        memory: UnsafeMutableRawPointer, byteCount: Int, entries: UInt32, hasLargeCQEs: Bool,
        registerPage: UnsafeMutableRawPointer, isT4: Bool, number: UInt32, context: Cxgb4ContextPointer
    ) {
        start = memory
        self.byteCount = byteCount
        self.entries = entries
        shift = hasLargeCQEs ? 6 : 5
        returnedAtATime = min(entries >> 4, Limits.returned)
        self.registerPage = registerPage
        register = registerPage + (isT4 ? GTS.offset4.offset : GTS.queue.offset)
        self.number = number
        self.context = context
        current = .allocate(capacity: 1)
        current.initialize(to: ibv_wc())
    }

    /// Unmaps the memory.
    func free() {
        current.deallocate()
        linux_unmap(registerPage, Int(linux_page_size()))
        linux_unmap(start, byteCount)
    }

    // MARK: - CQEs

    @inline(__always)
    private func cqe(_ index: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(index) &<< UInt64(shift))
    }

    /// The last 8 bytes of a CQE, in the order of memory.
    @inline(__always)
    private func tail(_ index: UInt32) -> UInt64 {
        linux_load_double_word(cqe(index &+ 1) - CQETail.byteCount + CQETail.generation.offset)
    }

    @inline(__always)
    private func isWritten(_ tail: UInt64, _ generation: UInt64) -> Bool {
        CQETail.generation.value(of: CQETail.generation.stored(tail)) == generation
    }

    /// The next CQE, if the adapter has written it. Sets `isOverrun` if the adapter has overwritten CQEs.
    @inline(__always)
    mutating func peek() -> Completion? {
        guard _fastPath(tail(index == 0 ? entries &- 1 : index &- 1) == lastTail) else {
            isOverrun = true
            return nil
        }
        guard isWritten(tail(index), generation) else { return nil }
        // The adapter wrote the rest of the CQE before its tail.
        linux_barrier_from_device()
        return Completion(cqe(index))
    }

    /// Consumes the CQE that `peek` returned.
    @inline(__always)
    mutating func consume() {
        lastTail = tail(index)
        unreturned &+= 1
        if _slowPath(unreturned == returnedAtATime) {
            writeRegister(timer: GTSTimer.returning, solicitedOnly: 0, unreturned)
            unreturned = 0
        }
        consumed &+= 1
        index &+= 1
        if _slowPath(index == entries) {
            index = 0
            generation ^= 1
        }
    }

    /// Calls `body` with the CQEs that are written and not consumed, and their numbers.
    /// - Returns: The number of the CQE after the last one.
    @discardableResult
    func forEachWritten(_ body: (Completion, UInt64) -> Void = { _, _ in }) -> UInt64 {
        var (place, generation, count) = (index, generation, 0 as UInt32)
        while count < entries, isWritten(tail(place), generation) {
            linux_barrier_from_device()
            body(Completion(cqe(place)), consumed &+ UInt64(count))
            count &+= 1
            place &+= 1
            if place == entries { (place, generation) = (0, generation ^ 1) }
        }
        return consumed &+ UInt64(count)
    }

    // MARK: - The register

    @inline(__always)
    private func writeRegister(timer: UInt32, solicitedOnly: UInt32, _ count: UInt32) {
        let word =
            GTS.queue.bits(number) | GTS.timer.bits(timer) | GTS.solicitedOnly.bits(solicitedOnly)
            | GTS.consumed.bits(count)
        linux_store_word_to_device(register, GTS.queue.stored(word))
    }

    /// Returns the consumed CQEs, and arms the completion queue.
    mutating func arm(solicitedOnly: Bool) {
        while unreturned > Limits.returned {
            writeRegister(timer: GTSTimer.returning, solicitedOnly: 0, Limits.returned)
            unreturned &-= Limits.returned
        }
        writeRegister(timer: GTSTimer.arming, solicitedOnly: solicitedOnly ? 1 : 0, unreturned)
        unreturned = 0
    }

    // MARK: - The request to flush

    /// The byte of the status page that requests a flush (`qp_err`).
    private var flushRequest: UnsafeMutableRawPointer { cqe(entries) + StatusPage.error.offset }

    @inline(__always)
    var isFlushRequested: Bool { linux_load_byte(flushRequest) != 0 }

    /// Requests a flush, as the kernel does.
    func requestFlush() { flushRequest.storeBytes(of: 1, as: UInt8.self) }

    /// Clears the request, before the flags of the queue pairs are read: the kernel sets them in the opposite order. The
    /// exchange is also the barrier between both.
    fileprivate func clearFlushRequest() {
        _ = flushRequest.assumingMemoryBound(to: Atomic<UInt8>.self).pointee
            .exchange(0, ordering: .sequentiallyConsistent)
    }
}

typealias CompletionRingPointer = UnsafeMutablePointer<CompletionRing>

// MARK: - Sides

extension CompletionRingPointer {
    /// Adds a side of a new queue pair. CQEs that are in the ring already are not its own.
    func add(_ side: CompletionSidePointer) {
        side.pointee.firstCQE = pointee.forEachWritten()
        var place: CompletionSidePointer?
        var next = pointee.firstUser
        while let user = next, user.pointee.queuePair <= side.pointee.queuePair {
            place = user
            next = user.pointee.nextUser
        }
        side.pointee.nextUser = next
        if let place { place.pointee.nextUser = side } else { pointee.firstUser = side }
    }

    /// Removes a side of a queue pair that is destroyed.
    func remove(_ side: CompletionSidePointer) {
        drop(side)
        if pointee.firstUser == side {
            pointee.firstUser = side.pointee.nextUser
            return
        }
        var place = pointee.firstUser
        while let user = place {
            if user.pointee.nextUser == side { user.pointee.nextUser = side.pointee.nextUser }
            place = user.pointee.nextUser
        }
    }

    /// Adds a side that has completions without a CQE.
    /// - Parameter barrier: The number of the CQE before which they are returned.
    func append(_ side: CompletionSidePointer, before barrier: UInt64) {
        side.pointee.barrier = barrier
        guard !side.pointee.isPending else { return }
        side.pointee.isPending = true
        side.pointee.nextPending = nil
        guard var last = pointee.firstPending else { return pointee.firstPending = side }
        while let next = last.pointee.nextPending { last = next }
        last.pointee.nextPending = side
    }

    /// Removes a side from those that have completions without a CQE.
    func removePending(_ side: CompletionSidePointer) {
        guard side.pointee.isPending else { return }
        side.pointee.isPending = false
        if pointee.firstPending == side {
            pointee.firstPending = side.pointee.nextPending
            return
        }
        var place = pointee.firstPending
        while let pending = place {
            if pending.pointee.nextPending == side { pending.pointee.nextPending = side.pointee.nextPending }
            place = pending.pointee.nextPending
        }
    }

    /// Drops the CQEs of a queue pair that is reset or destroyed, and frees the shared receives that they completed.
    func drop(_ side: CompletionSidePointer) {
        removePending(side)
        guard let shared = side.pointee.shared else { return }
        pointee.forEachWritten { completion, number in
            guard !completion.isSend, completion.queuePair == side.pointee.queuePair,
                Completion.isOperationOfReceive(completion.operation), number >= side.pointee.firstCQE
            else { return }
            _ = shared.retire(completion.sharedReceive)
        }
        if let index = side.begunSharedReceive { _ = shared.retire(index) }
    }

    /// Writes the next completion that has no CQE, if all CQEs before it were consumed. Returns false if there is none.
    @inline(never)
    func nextPending(_ wc: UnsafeMutablePointer<ibv_wc>) -> Bool {
        while let side = pointee.firstPending, side.pointee.barrier <= pointee.consumed || pointee.isOverrun {
            if side.next(wc) { return true }
            removePending(side)
        }
        return false
    }

    /// Flushes the sides whose queue pairs the kernel has marked. A side that is being posted to is flushed at the next
    /// poll, so that the thread that polls does not wait for one that is between wr_start and wr_complete.
    @inline(never)
    func startFlushes() {
        pointee.clearFlushRequest()
        let end = pointee.forEachWritten()
        var next = pointee.firstUser
        while let side = next {
            next = side.pointee.nextUser
            guard !side.pointee.isFlushed, side.pointee.flags.isInError else { continue }
            if !side.pointee.pair.tryStopPosting(isSend: side.pointee.isSend, { side.pointee.isFlushed = true }) {
                pointee.requestFlush()
                continue
            }
            side.pointee.cqeCount = end &- side.pointee.firstCQE
            append(side, before: end)
        }
    }
}

extension QueuePairPointer {
    /// Runs `body` while nothing is posted to the send or receive queue, unless another thread is posting. Returns
    /// whether it ran. Afterwards posting finds the queue pair in error.
    fileprivate func tryStopPosting(isSend: Bool, _ body: () -> Void) -> Bool {
        if isSend {
            guard pointee.sendLock.tryLock() else { return false }
            body()
            pointee.sendLock.unlock()
        } else {
            guard pointee.receiveLock.tryLock() else { return false }
            body()
            pointee.receiveLock.unlock()
        }
        return true
    }
}
