import Synchronization

/// Everything an engine consists of. It lives in one place in memory, which `Engine` owns.
struct Core {
    let configuration: Configuration
    var random: KeyedRandom
    var keys = MemoryKeyTable()
    var counters = Counters()
    var events = EventList()
    var timers: TimerHeap
    let doorbells: Doorbells

    /// Those that have acknowledgements, READ responses, requests to send.
    var acknowledgements = ReadyList()
    var readResponses = ReadyList()
    var requests = ReadyList()
    /// Packets that the front of the list has sent in a row.
    var inTurn: UInt32 = 0
    /// Whether READ responses are next, or requests: they take turns.
    var responsesNext = true

    /// Queue pairs by the low bits of their number.
    let queuePairs: UnsafeMutablePointer<UnsafeMutablePointer<QueuePairStorage>?>
    let indexBits: UInt32
    /// Indices that are free, in a ring: each rests as long as possible.
    private let freeIndices: UnsafeMutablePointer<UInt32>
    private var firstFree: UInt32 = 0
    private var freeCount: UInt32 = 0

    /// Users of each protection domain; -1 for one that does not exist.
    private var domains: UnsafeMutablePointer<Int32>
    private var domainCapacity = 64

    init(_ configuration: Configuration) {
        self.configuration = configuration
        random = KeyedRandom(seed: configuration.seed)
        var bits: UInt32 = 6
        while bits < 16, 1 << bits < configuration.maximumQueuePairs { bits += 1 }
        indexBits = bits
        let count = 1 << Int(bits)
        queuePairs = .allocate(capacity: count)
        queuePairs.initialize(repeating: nil, count: count)
        timers = TimerHeap(capacity: count)
        doorbells = Doorbells(count: count)
        freeIndices = .allocate(capacity: count)
        freeIndices.initialize(repeating: 0, count: count)
        domains = .allocate(capacity: domainCapacity)
        domains.initialize(repeating: -1, count: domainCapacity)
        shuffleIndices(count: UInt32(count))
    }

    /// Numbers 0, 1 (management) and 0xFFFFFF (multicast) are nobody's, so those indices are left out.
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
        timers.deallocate()
        doorbells.deallocate()
        queuePairs.deallocate()
        freeIndices.deallocate()
        domains.deallocate()
    }
}

// MARK: - Queue pair numbers

extension Core {
    /// | bits | prefix | random | index |
    private var numberBits: UInt32 { 24 - configuration.queuePairPrefixBits }

    mutating func takeNumber() throws(Errno) -> (number: UInt32, index: UInt32) {
        guard freeCount > 0 else { throw .noMemory }
        let count: UInt32 = 1 << indexBits
        let index = freeIndices[Int(firstFree)]
        firstFree = (firstFree + 1) & (count - 1)
        freeCount -= 1
        let generations: UInt32 = 1 << (numberBits - indexBits)
        let number = configuration.queuePairPrefix << numberBits | random.next(below: generations) << indexBits | index
        return (number & 0xFF_FFFF, index)
    }

    mutating func giveBack(index: UInt32) {
        let count: UInt32 = 1 << indexBits
        freeIndices[Int((firstFree + freeCount) & (count - 1))] = index
        freeCount += 1
    }

    /// The queue pair with this number, or nil.
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

    func changeUsers(ofDomain domain: UInt32, by change: Int32) { domains[Int(domain)] += change }

    func deallocateDomain(_ domain: UInt32) throws(Errno) {
        guard domainExists(domain) else { throw .invalid }
        guard domains[Int(domain)] == 0 else { throw .busy }
        domains[Int(domain)] = -1
    }
}
