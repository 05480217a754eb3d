import Synchronization

/// What one side of a ring keeps for itself. Positions count up freely and wrap.
struct RingSide {
    /// How far this side has come: at or ahead of what the other side may see.
    var position: UInt32 = 0
    /// How far the other side had come when last looked at.
    var seen: UInt32 = 0
}

/// A bounded queue in memory for one producer and one consumer, which need no common lock: the index stored with
/// release ordering publishes the slot before it.
///
/// The struct holds only pointers and constants, so copies of it are the same ring.
struct Ring {
    /// Slot 0. Slots lie `stride` bytes apart.
    let slots: UnsafeMutableRawPointer
    let stride: Int
    /// Number of slots minus one; the number is a power of two.
    let mask: UInt32
    /// How many slots may be in use: what was asked for, at most `mask + 1`.
    let limit: UInt32
    /// How far the producer has come, as the consumer may see it; and the other way around. Each has a cache line with
    /// its side's own view behind it.
    let produced: UnsafeMutablePointer<Atomic<UInt32>>
    let consumed: UnsafeMutablePointer<Atomic<UInt32>>
    let producer: UnsafeMutablePointer<RingSide>
    let consumer: UnsafeMutablePointer<RingSide>

    private static let lineSize = 64
    /// Where in a line the side's own view starts.
    private static let viewOffset = 8

    /// - Parameters:
    ///   - limit: at least 1, at most 2^30.
    ///   - stride: bytes of a slot, a multiple of 8.
    init(limit: UInt32, stride: Int) {
        var count: UInt32 = 1
        while count < limit { count <<= 1 }
        let head = 2 * Self.lineSize
        let block = UnsafeMutableRawPointer.allocate(
            byteCount: head + Int(count) * stride, alignment: Self.lineSize)
        let line = block + Self.lineSize
        produced = block.bindMemory(to: Atomic<UInt32>.self, capacity: 1)
        consumed = line.bindMemory(to: Atomic<UInt32>.self, capacity: 1)
        producer = (block + Self.viewOffset).bindMemory(to: RingSide.self, capacity: 1)
        consumer = (line + Self.viewOffset).bindMemory(to: RingSide.self, capacity: 1)
        produced.initialize(to: Atomic(0))
        consumed.initialize(to: Atomic(0))
        producer.initialize(to: RingSide())
        consumer.initialize(to: RingSide())
        slots = block + head
        self.stride = stride
        self.limit = limit
        mask = count - 1
    }

    func deallocate() {
        UnsafeMutableRawPointer(produced).deallocate()
    }

    /// Where slot `index` lies, for any freely counting index.
    @inline(__always)
    func slot(_ index: UInt32) -> UnsafeMutableRawPointer { slots + Int(index & mask) &* stride }

    /// Empties the ring. Neither side may be at work.
    func reset() {
        producer.initialize(to: RingSide())
        consumer.initialize(to: RingSide())
        produced.pointee.store(0, ordering: .releasing)
        consumed.pointee.store(0, ordering: .releasing)
    }
}

// MARK: - The producer

extension Ring {
    /// The slot to fill next, or nil when all are in use.
    @inline(__always)
    func reserve() -> UnsafeMutableRawPointer? {
        let position = producer.pointee.position
        if position &- producer.pointee.seen >= limit {
            producer.pointee.seen = consumed.pointee.load(ordering: .acquiring)
            if position &- producer.pointee.seen >= limit { return nil }
        }
        return slot(position)
    }

    /// Counts the reserved slot as filled; the consumer does not see it yet.
    @inline(__always)
    func stage() { producer.pointee.position &+= 1 }

    /// Shows the consumer everything staged. True when there was something.
    @inline(__always)
    func publish() -> Bool {
        let position = producer.pointee.position
        guard position != produced.pointee.load(ordering: .relaxed) else { return false }
        produced.pointee.store(position, ordering: .releasing)
        return true
    }

    /// Forgets what was staged and not published.
    func discard() { producer.pointee.position = produced.pointee.load(ordering: .relaxed) }
}

// MARK: - The consumer

extension Ring {
    /// True when slot `index` was published, for an index at or behind the producer's.
    @inline(__always)
    func has(_ index: UInt32) -> Bool {
        if index != consumer.pointee.seen { return true }
        consumer.pointee.seen = produced.pointee.load(ordering: .acquiring)
        return index != consumer.pointee.seen
    }

    /// The consumer's position: the oldest slot in use.
    @inline(__always)
    var oldest: UInt32 { consumer.pointee.position }

    /// How many published slots the consumer has not released.
    var count: UInt32 {
        consumer.pointee.seen = produced.pointee.load(ordering: .acquiring)
        return consumer.pointee.seen &- consumer.pointee.position
    }

    /// Gives the oldest `count` slots back to the producer.
    @inline(__always)
    func release(_ count: UInt32 = 1) {
        consumer.pointee.position &+= count
        consumed.pointee.store(consumer.pointee.position, ordering: .releasing)
    }
}
