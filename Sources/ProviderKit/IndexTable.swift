import Synchronization

/// Objects by numbers of 24 bits, as a device numbers its queues: a look-up takes no lock. Two levels of 4096 places; the
/// second ones are made when they are needed.
///
/// A number is looked up only while its object cannot go away: removing it waits for those who look, by a lock of
/// their own.
public struct IndexTable: ~Copyable {
    private static let places = 4096

    private typealias Leaf = UnsafeMutablePointer<Atomic<UInt>>

    private let lock = Lock()
    /// Addresses of leaves, or 0.
    private let leaves: UnsafeMutablePointer<Atomic<UInt>>

    /// An empty table.
    public init() { leaves = Self.zeroed() }

    deinit {
        for index in 0..<Self.places {
            if let leaf = Leaf(bitPattern: leaves[index].load(ordering: .relaxed)) { leaf.deallocate() }
        }
        leaves.deallocate()
    }

    private static func zeroed() -> Leaf {
        let leaf = Leaf.allocate(capacity: places)
        for index in 0..<places { (leaf + index).initialize(to: Atomic(0)) }
        return leaf
    }

    /// The object of a number; nil where there is none, or the number has more than 24 bits.
    @inline(__always)
    public borrowing func find(_ number: UInt32) -> UnsafeMutableRawPointer? {
        guard number >> 24 == 0, let leaf = Leaf(bitPattern: leaves[Int(number >> 12)].load(ordering: .acquiring))
        else {
            return nil
        }
        return UnsafeMutableRawPointer(bitPattern: leaf[Int(number & 0xFFF)].load(ordering: .acquiring))
    }

    /// Gives a number to an object. False when another has it, or it has more than 24 bits.
    public borrowing func insert(_ object: UnsafeMutableRawPointer, as number: UInt32) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        guard number >> 24 == 0 else { return false }
        let place = leaf(Int(number >> 12)) + Int(number & 0xFFF)
        guard place.pointee.load(ordering: .relaxed) == 0 else { return false }
        place.pointee.store(UInt(bitPattern: object), ordering: .releasing)
        return true
    }

    /// Gives the lowest free number to an object; nil when all are taken. 0xFFFFFF, which devices keep for none, is never
    /// given.
    public borrowing func insert(_ object: UnsafeMutableRawPointer) -> UInt32? {
        lock.lock()
        defer { lock.unlock() }
        for high in 0..<Self.places {
            let leaf = leaf(high)
            for low in 0..<Self.places where leaf[low].load(ordering: .relaxed) == 0 {
                guard (high, low) != (Self.places - 1, Self.places - 1) else { return nil }
                leaf[low].store(UInt(bitPattern: object), ordering: .releasing)
                return UInt32(high << 12 | low)
            }
        }
        return nil
    }

    /// Takes a number back.
    public borrowing func remove(_ number: UInt32) {
        lock.lock()
        defer { lock.unlock() }
        guard number >> 24 == 0 else { return }
        leaf(Int(number >> 12))[Int(number & 0xFFF)].store(0, ordering: .releasing)
    }

    /// Under the lock.
    private borrowing func leaf(_ index: Int) -> Leaf {
        if let leaf = Leaf(bitPattern: leaves[index].load(ordering: .relaxed)) { return leaf }
        let leaf = Self.zeroed()
        leaves[index].store(UInt(bitPattern: leaf), ordering: .releasing)
        return leaf
    }
}
