import Synchronization

/// The state of an engine (`struct rxe_dev` of the kernel's rxe). It is at one address, which `Engine` owns.
struct Core {
    var configuration: Configuration
    var random: KeyedRandom
    var keys: MemoryKeyTable
    var counters = Counters()
    var events = EventList()
    var timers: TimerHeap
    let doorbells: Doorbells
    /// The table in which requesters of this host find the memory of this engine; nil when none needs it.
    var accessTable: AccessTable?
    /// The number of the last grant (`QueuePairStorage.grantNumber`).
    var grantCount: UInt16 = 0
    /// The SENDs that took the short path, sent and received.
    var shortMessages: UInt64 = 0
    /// The description of the packet that `transmit` wrote.
    let outgoing = UnsafeMutablePointer<OutgoingPacket>.allocate(capacity: 1)
    /// Whether the request that was written last is a reference (`Reference`).
    var wroteReference = false
    /// The engines of this host whose memory the requester accesses directly.
    let neighbors: NeighborTable
    /// Whether requests to neighbors wait for their turn.
    var hasDirectWork = false
    /// The shared receive queues for XRC by their numbers.
    var numberedQueues = SharedReceiveQueueTable()
    /// The faults that are injected; nil for none.
    var faults: UnsafeMutablePointer<FaultPlan>?

    /// The queue pairs with acknowledgements, READ responses or requests to send.
    var acknowledgements = ReadyList()
    var readResponses = ReadyList()
    var requests = ReadyList()
    /// The devices of this host whose queue pairs in these lists wait.
    var fullReceivers = FullReceivers()
    /// Packets that the first queue pair of `requests` has sent in a row.
    var inTurn: UInt32 = 0
    /// Whether READ responses or requests are sent next: they alternate.
    var responsesNext = true

    /// The queue pairs that are attached to multicast groups.
    var multicast = MulticastTable()
    /// The time of the last `receive`, `transmit` or `advance`, in nanoseconds.
    var now: UInt64 = 0
    /// The acknowledgements that were lost: a duplicate request arrived some time after they were sent. Wraps.
    var lostAcknowledgements: UInt64 = 0
    /// The completion queues whose event waits for `cq_period`, and the earliest of their deadlines.
    var moderated: UnsafeMutablePointer<CompletionQueueStorage>?
    var moderationDeadline = UInt64.max
    /// The queue pairs whose rate limit allows no packet yet, and the time at which the first of them may send.
    var paced: UnsafeMutablePointer<QueuePairStorage>?
    var pacingDeadline = UInt64.max

    /// The requests that arrived before an earlier one, the queue pairs that have some, and the earliest of their deadlines.
    var heldRequests: HeldRequestPool
    var gaps = ReadyList()
    var gapDeadline = UInt64.max

    /// The windows that queue pairs with one destination share.
    let pathWindows = PathWindowTable()

    /// Queue pairs by the low bits of their QPN.
    let queuePairs: UnsafeMutablePointer<UnsafeMutablePointer<QueuePairStorage>?>
    let indexBits: UInt32
    /// Free indices, in a ring, so that an index stays free as long as possible before it is used again.
    private let freeIndices: UnsafeMutablePointer<UInt32>
    private var firstFree: UInt32 = 0
    private var freeCount: UInt32 = 0

    /// The number of objects of each protection domain; -1 for a protection domain that does not exist.
    private var domains: UnsafeMutablePointer<Int32>
    private var domainCapacity = 64

    init(_ configuration: Configuration) {
        self.configuration = configuration
        random = KeyedRandom(seed: configuration.seed)
        keys = MemoryKeyTable(memoryCheck: configuration.memoryCheck)
        var bits: UInt32 = 6
        while bits < 16, 1 << bits < configuration.maximumQueuePairs { bits += 1 }
        indexBits = bits
        let count = 1 << Int(bits)
        queuePairs = .allocate(capacity: count)
        queuePairs.initialize(repeating: nil, count: count)
        neighbors = NeighborTable(prefixBits: configuration.qpnPrefixBits)
        timers = TimerHeap(capacity: count)
        doorbells = Doorbells(count: count)
        heldRequests = HeldRequestPool(capacity: Int(configuration.heldRequests))
        freeIndices = .allocate(capacity: count)
        freeIndices.initialize(repeating: 0, count: count)
        domains = .allocate(capacity: domainCapacity)
        domains.initialize(repeating: -1, count: domainCapacity)
        shuffleIndices(count: UInt32(count))
    }

    /// QPNs 0 (`IB_QPT_SMI`), 1 (`IB_QPT_GSI`) and 0xFFFFFF (multicast) are reserved, so their indices are left out.
    private mutating func shuffleIndices(count: UInt32) {
        for index in 2..<count - 1 {
            freeIndices[Int(freeCount)] = index
            freeCount += 1
        }
        var left = freeCount
        while left > 1 {
            let other = Int(random.next(below: left))
            left -= 1
            let taken = freeIndices[Int(left)]
            freeIndices[Int(left)] = freeIndices[other]
            freeIndices[other] = taken
        }
    }

    func deallocate() {
        keys.deallocate()
        neighbors.deallocate()
        outgoing.deallocate()
        multicast.deallocate()
        numberedQueues.deallocate()
        pathWindows.deallocate()
        heldRequests.deallocate()
        timers.deallocate()
        doorbells.deallocate()
        queuePairs.deallocate()
        freeIndices.deallocate()
        domains.deallocate()
    }
}

// MARK: - Queue pair numbers

extension Core {
    /// The bits of a QPN below the prefix. From the top, a QPN has: prefix, random number, index.
    private var numberBits: UInt32 { 24 - configuration.qpnPrefixBits }

    mutating func takeNumber() throws(Errno) -> (number: UInt32, index: UInt32) {
        guard freeCount > 0 else { throw .noMemory }
        let count: UInt32 = 1 << indexBits
        let index = freeIndices[Int(firstFree)]
        firstFree = (firstFree + 1) & (count - 1)
        freeCount -= 1
        let generations: UInt32 = 1 << (numberBits - indexBits)
        let number = configuration.qpnPrefix << numberBits | random.next(below: generations) << indexBits | index
        return (number & mask24, index)
    }

    mutating func giveBack(index: UInt32) {
        let count: UInt32 = 1 << indexBits
        assert(queuePairs[Int(index)] == nil && freeCount < count, "the index is in use")
        freeIndices[Int((firstFree + freeCount) & (count - 1))] = index
        freeCount += 1
    }

    /// The queue pair with this QPN, or nil.
    @inline(__always)
    func queuePair(_ number: UInt32) -> UnsafeMutablePointer<QueuePairStorage>? {
        guard let pair = queuePairs[Int(number & (1 << indexBits &- 1))], pair.pointee.number == number else {
            return nil
        }
        return pair
    }
}

// MARK: - Protection domains

extension Core {
    mutating func allocateDomain() throws(Errno) -> UInt32 {
        for index in 0..<domainCapacity where domains[index] < 0 {
            domains[index] = 0
            return UInt32(index)
        }
        guard domainCapacity < 1 << 16 else { throw .noMemory }
        let larger = UnsafeMutablePointer<Int32>.allocate(capacity: domainCapacity * 2)
        larger.initialize(repeating: -1, count: domainCapacity * 2)
        for index in 0..<domainCapacity { larger[index] = domains[index] }
        domains.deallocate()
        domains = larger
        let index = domainCapacity
        domainCapacity *= 2
        domains[index] = 0
        return UInt32(index)
    }

    func domainExists(_ domain: UInt32) -> Bool { domain < domainCapacity && domains[Int(domain)] >= 0 }

    func changeUsers(ofDomain domain: UInt32, by change: Int32) {
        domains[Int(domain)] += change
        assert(domains[Int(domain)] >= 0, "more objects left the protection domain than belonged to it")
    }

    func deallocateDomain(_ domain: UInt32) throws(Errno) {
        guard domainExists(domain) else { throw .invalid }
        guard domains[Int(domain)] == 0 else { throw .busy }
        domains[Int(domain)] = -1
    }
}
