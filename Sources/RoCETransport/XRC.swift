import RoCEWire

// Extended reliable connections (XRC; IBTA volume 1, annex A14). An XRC_SEND queue pair is the requester of a
// connection and an XRC_RECV queue pair its responder. Each request names a shared receive queue of the responder's XRC
// domain in its XRCETH. That queue has the receive work requests, the completion queue and the protection domain of the
// request, since an XRC_RECV queue pair has none of them.

/// The storage of an XRC domain.
struct XRCDomainStorage {
    /// The completion queue of XRC_RECV queue pairs that have received no request. Nothing is written to it.
    let completions: CompletionQueue
    /// The number of shared receive queues and XRC_RECV queue pairs that belong to the domain.
    var users = 0
}

/// An XRC domain (`struct ibv_xrcd`). The handle is not valid any more after `Engine.close`.
@frozen
public struct XRCDomain: Hashable, @unchecked Sendable {
    /// The address of the engine's storage, which identifies the XRC domain, as the address of a `struct ibv_xrcd` does
    /// in libibverbs.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<XRCDomainStorage> { identity.assumingMemoryBound(to: XRCDomainStorage.self) }

    init(_ storage: UnsafeMutablePointer<XRCDomainStorage>) { identity = UnsafeMutableRawPointer(storage) }
}

extension Engine {
    /// Opens an XRC domain of this engine alone (`ibv_open_xrcd` with the descriptor -1).
    public borrowing func openXRCDomain() throws(Errno) -> XRCDomain {
        let completions = try createCompletionQueue(capacity: 1, ignoresOverrun: true)
        let storage = UnsafeMutablePointer<XRCDomainStorage>.allocate(capacity: 1)
        storage.initialize(to: XRCDomainStorage(completions: completions))
        return XRCDomain(storage)
    }

    /// Closes an XRC domain (`ibv_close_xrcd`).
    /// - Throws: EBUSY while shared receive queues or queue pairs belong to it.
    public borrowing func close(_ domain: XRCDomain) throws(Errno) {
        guard domain.storage.pointee.users == 0 else { throw .busy }
        try destroy(domain.storage.pointee.completions)
        domain.storage.deallocate()
    }

    /// Creates a shared receive queue for XRC (`ibv_create_srq_ex` with `IBV_SRQT_XRC`), which has a number.
    /// - Parameters:
    ///   - domain: The protection domain of the memory that its SGEs and the requests to it access.
    ///   - xrcDomain: The XRC domain of the queue pairs that may receive from it.
    ///   - completions: The completion queue of its receive work requests (`ibv_srq_init_attr_ex.cq`).
    ///   - maxWR: As for `createSharedReceiveQueue`.
    ///   - maxSGE: As for `createSharedReceiveQueue`.
    ///   - userData: Returned by `SharedReceiveQueue.userData`.
    /// - Throws: EINVAL for an unknown protection domain or a number out of range; ENOMEM when there are 65,535.
    public borrowing func createSharedReceiveQueue(
        _ domain: ProtectionDomain, xrcDomain: XRCDomain, completions: CompletionQueue, maxWR: UInt32,
        maxSGE: UInt32 = 1, userData: UnsafeMutableRawPointer? = nil
    ) throws(Errno) -> SharedReceiveQueue {
        let queue = try createSharedReceiveQueue(domain, maxWR: maxWR, maxSGE: maxSGE, userData: userData)
        do throws(Errno) {
            queue.storage.pointee.number = try core.pointee.numberedQueues.insert(
                queue.storage, random: &core.pointee.random)
        } catch {
            try destroy(queue)
            throw error
        }
        queue.storage.pointee.xrcDomain = xrcDomain.storage
        queue.storage.pointee.completions = completions.storage
        xrcDomain.storage.pointee.users += 1
        completions.storage.pointee.users += 1
        return queue
    }

    /// Passes the events of a queue pair to another object of the caller, in place of the one that `userData` was
    /// (`qp_context`).
    public borrowing func setUserData(of queuePair: QueuePair, to userData: UnsafeMutableRawPointer?) {
        queuePair.storage.pointee.userData = userData
    }

    /// The XRC_RECV queue pair of a domain with this number (`ibv_open_qp`); nil when there is none.
    public borrowing func queuePair(_ number: UInt32, of domain: XRCDomain) -> QueuePair? {
        guard let pair = core.pointee.queuePair(number), pair.pointee.type == .xrcReceive,
            pair.pointee.xrcDomain == domain.storage
        else { return nil }
        return QueuePair(pair)
    }
}

/// The shared receive queues with a number, by the low 16 bits of it. The other 8 bits are random, so that a request to
/// a queue that was destroyed rarely finds the next one in the same place.
struct SharedReceiveQueueTable {
    private typealias Slot = UnsafeMutablePointer<SharedReceiveQueueStorage>?
    private static let maximumCount = 1 << 16

    private var slots: UnsafeMutablePointer<Slot>
    private var capacity = 8
    private var count = 0
    /// The place at which the search for a free one begins: places are used again as late as possible.
    private var next = 1

    init() {
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: nil, count: capacity)
    }

    func deallocate() { slots.deallocate() }

    /// Adds a queue, and returns its number: 24 bits, and not 0.
    /// - Throws: ENOMEM when all 65,535 places are in use.
    mutating func insert(
        _ queue: UnsafeMutablePointer<SharedReceiveQueueStorage>, random: inout KeyedRandom
    ) throws(Errno) -> UInt32 {
        // Place 0 is not used, so that no number is 0.
        if count == capacity - 1 { try grow() }
        while next == 0 || slots[next] != nil { next = (next + 1) & (capacity - 1) }
        slots[next] = queue
        count += 1
        let number = random.next(below: 1 << 8) << 16 | UInt32(next)
        next = (next + 1) & (capacity - 1)
        return number
    }

    private mutating func grow() throws(Errno) {
        guard capacity < Self.maximumCount else { throw .noMemory }
        let larger = UnsafeMutablePointer<Slot>.allocate(capacity: 2 * capacity)
        larger.initialize(repeating: nil, count: 2 * capacity)
        larger.update(from: slots, count: capacity)
        slots.deallocate()
        slots = larger
        next = capacity
        capacity *= 2
    }

    mutating func remove(_ queue: UnsafeMutablePointer<SharedReceiveQueueStorage>) {
        let place = Int(queue.pointee.number & 0xFFFF)
        assert(slots[place] == queue, "the queue is not in its place")
        slots[place] = nil
        count -= 1
    }

    /// The queue with this number; nil when there is none.
    func find(_ number: UInt32) -> UnsafeMutablePointer<SharedReceiveQueueStorage>? {
        let place = Int(number & 0xFFFF)
        guard place < capacity, let queue = slots[place], queue.pointee.number == number else { return nil }
        return queue
    }
}

// MARK: - The responder

extension Core {
    /// The protection domain of an XRC_RECV queue pair that has received no request: none has this number.
    static var noDomain: UInt32 { .max }

    /// Gives an XRC_RECV queue pair the shared receive queue that a request names, with its completion queue and
    /// protection domain.
    /// - Returns: `.success`; `.remoteAccessError` when the XRC domain of the queue pair has no such queue (annex A14:
    ///   invalid XRCETH, XRC domain violation); `.remoteInvalidRequestError` when the packets of one message name two.
    @inline(never)
    mutating func select(_ pair: Pair, _ number: UInt32) -> CompletionStatus {
        assert(pair.pointee.type == .xrcReceive)
        guard let queue = numberedQueues.find(number), queue.pointee.xrcDomain == pair.pointee.xrcDomain,
            let completions = queue.pointee.completions
        else { return .remoteAccessError }
        if pair.pointee.sharedReceiveQueue == queue { return .success }
        guard pair.pointee.responder.message == Responder.betweenMessages else { return .remoteInvalidRequestError }
        assert(!pair.pointee.responder.holdsReceive, "a receive work request of another queue is held")
        pair.pointee.sharedReceiveQueue = queue
        pair.pointee.receiveCQ = completions
        pair.pointee.protectionDomain = queue.pointee.protectionDomain
        return .success
    }

    /// Takes its shared receive queue from an XRC_RECV queue pair.
    func deselect(_ pair: Pair) {
        guard pair.pointee.type == .xrcReceive else { return }
        pair.pointee.responder.holdsReceive = false
        pair.pointee.sharedReceiveQueue = nil
        pair.pointee.receiveCQ = pair.pointee.sendCQ
        pair.pointee.protectionDomain = Self.noDomain
    }

    /// A shared receive queue for XRC is destroyed: no queue pair uses it any more. The responses of READs that named it
    /// and were not sent end their connection, since its protection domain may be deallocated now.
    mutating func leave(_ queue: UnsafeMutablePointer<SharedReceiveQueueStorage>) {
        guard let domain = queue.pointee.xrcDomain else { return }
        for index in 0..<1 << Int(indexBits) {
            guard let pair = queuePairs[index], pair.pointee.xrcDomain == domain else { continue }
            if pair.pointee.sharedReceiveQueue == queue { deselect(pair) }
            var index = pair.pointee.responder.firstResource
            while index != pair.pointee.responder.endResource {
                let resource = pair.pointee.responder.resources.place(index)
                if resource.pointee.sharedReceiveQueue == queue.pointee.number {
                    resource.pointee.protectionDomain = Self.noDomain
                }
                index &+= 1
            }
        }
        numberedQueues.remove(queue)
        domain.pointee.users -= 1
        queue.pointee.completions?.pointee.users -= 1
    }
}
