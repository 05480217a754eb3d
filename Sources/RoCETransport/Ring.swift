import Synchronization

/// The private state of the producer or the consumer of a ring (`index` of `struct rxe_queue` of the kernel's rxe).
/// Positions count up and wrap.
struct RingSide {
    /// The position of this side: at or ahead of the published one.
    var position: UInt32 = 0
    /// The position of the producer or consumer at the other end when it was last read.
    var seen: UInt32 = 0
}

/// A queue of WQEs or CQEs (`struct rxe_queue` of the kernel's rxe): a bounded queue in memory for one producer and one
/// consumer, which need no common lock: the index stored with release ordering publishes the slot before it.
///
/// The struct holds only pointers and constants, so copies of it are the same ring.
struct Ring {
    /// Slot 0. Slots are `stride` bytes apart.
    let slots: UnsafeMutableRawPointer
    let stride: Int
    /// Number of slots minus one; the number is a power of two.
    let mask: UInt32
    /// The largest number of slots in use: the requested number, at most `mask + 1`.
    let limit: UInt32
    /// The published positions of the producer and of the consumer. Each has a cache line, which also holds the private
    /// state of its side.
    let produced: UnsafeMutablePointer<Atomic<UInt32>>
    let consumed: UnsafeMutablePointer<Atomic<UInt32>>
    let producer: UnsafeMutablePointer<RingSide>
    let consumer: UnsafeMutablePointer<RingSide>

    private static let lineSize = 64
    /// The offset of the private state in a cache line.
    private static let viewOffset = 8

    /// Creates an empty ring.
    /// - Parameters:
    ///   - limit: The number of slots, 0 to 2^30.
    ///   - stride: The bytes of a slot, a multiple of 8.
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

    /// The address of slot `index`, for any position.
    @inline(__always)
    func slot(_ index: UInt32) -> UnsafeMutableRawPointer { slots + Int(index & mask) &* stride }

    /// Empties the ring. Neither side may use it meanwhile.
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

    /// Counts the reserved slot as filled; the consumer does not read it before `publish`.
    @inline(__always)
    func stage() {
        assert(producer.pointee.position &- consumed.pointee.load(ordering: .relaxed) < limit, "no slot was reserved")
        producer.pointee.position &+= 1
    }

    /// Publishes all staged slots to the consumer. Returns false when no slot was staged.
    @inline(__always)
    func publish() -> Bool {
        let position = producer.pointee.position
        guard position != produced.pointee.load(ordering: .relaxed) else { return false }
        produced.pointee.store(position, ordering: .releasing)
        return true
    }

    /// Publishes all staged slots before any sequentially consistent load that follows. Returns false when no slot was staged.
    @inline(__always)
    func publishInOrder() -> Bool {
        let position = producer.pointee.position
        guard position != produced.pointee.load(ordering: .relaxed) else { return false }
        // As a store and a fence after it, in one instruction.
        _ = produced.pointee.exchange(position, ordering: .sequentiallyConsistent)
        return true
    }

    /// Removes the slots that were staged and not published.
    func discard() { producer.pointee.position = produced.pointee.load(ordering: .relaxed) }
}

// MARK: - The consumer

extension Ring {
    /// True when slot `index` was published, for an index at or before the producer's position.
    @inline(__always)
    func has(_ index: UInt32) -> Bool {
        if index != consumer.pointee.seen { return true }
        consumer.pointee.seen = produced.pointee.load(ordering: .acquiring)
        return index != consumer.pointee.seen
    }

    /// The consumer's position: the oldest slot that it has not taken.
    @inline(__always)
    var oldest: UInt32 { consumer.pointee.position }

    /// The number of published slots that the consumer has not taken.
    var count: UInt32 {
        consumer.pointee.seen = produced.pointee.load(ordering: .acquiring)
        return consumer.pointee.seen &- consumer.pointee.position
    }

    /// Takes the oldest `count` slots, and returns all taken slots to the producer.
    @inline(__always)
    func release(_ count: UInt32 = 1) {
        take(count)
        giveBack()
    }

    /// Takes the oldest `count` slots, which stay in use until `giveBack`.
    @inline(__always)
    func take(_ count: UInt32 = 1) {
        assert(consumer.pointee.seen &- consumer.pointee.position >= count, "more slots than are published")
        consumer.pointee.position &+= count
    }

    /// Returns all taken slots to the producer.
    @inline(__always)
    func giveBack() { consumed.pointee.store(consumer.pointee.position, ordering: .releasing) }

    /// The number of slots that were taken and not returned.
    var taken: UInt32 { oldest &- consumed.pointee.load(ordering: .relaxed) }
}
