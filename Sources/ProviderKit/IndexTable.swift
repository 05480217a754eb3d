import Synchronization

/// A table of objects by 24-bit number, such as a QPN or SRQN. A look-up takes no lock. The table has two levels of
/// 4096 slots; second-level tables are allocated on demand.
///
/// The caller of `find` must hold a lock that prevents the destruction of the object.
public struct IndexTable: ~Copyable {
    private static let places = 4096

    private typealias Leaf = UnsafeMutablePointer<Atomic<UInt>>

    private let lock = Lock()
    /// The addresses of the second-level tables, or 0.
    private let leaves: UnsafeMutablePointer<Atomic<UInt>>

    /// Creates an empty table.
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

    /// Returns the object of a number, or nil if there is none or the number has more than 24 bits.
    @inline(__always)
    public borrowing func find(_ number: UInt32) -> UnsafeMutableRawPointer? {
        guard number >> 24 == 0, let leaf = Leaf(bitPattern: leaves[Int(number >> 12)].load(ordering: .acquiring))
        else {
            return nil
        }
        return UnsafeMutableRawPointer(bitPattern: leaf[Int(number & 0xFFF)].load(ordering: .acquiring))
    }

    /// Inserts an object under a number. Returns false if the number is in use or has more than 24 bits.
    public borrowing func insert(_ object: UnsafeMutableRawPointer, as number: UInt32) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        guard number >> 24 == 0 else { return false }
        let place = leaf(Int(number >> 12)) + Int(number & 0xFFF)
        guard place.pointee.load(ordering: .relaxed) == 0 else { return false }
        place.pointee.store(UInt(bitPattern: object), ordering: .releasing)
        return true
    }

    /// Inserts an object under the lowest free number and returns it, or nil if all are in use. 0xFFFFFF, the multicast
    /// QPN (IBTA volume 1, 10.5.1), is never allocated.
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

    /// Removes the object of a number.
    public borrowing func remove(_ number: UInt32) {
        lock.lock()
        defer { lock.unlock() }
        guard number >> 24 == 0 else { return }
        leaf(Int(number >> 12))[Int(number & 0xFFF)].store(0, ordering: .releasing)
    }

    /// Returns the second-level table of an index. The caller holds the lock.
    private borrowing func leaf(_ index: Int) -> Leaf {
        if let leaf = Leaf(bitPattern: leaves[index].load(ordering: .relaxed)) { return leaf }
        let leaf = Self.zeroed()
        leaves[index].store(UInt(bitPattern: leaf), ordering: .releasing)
        return leaf
    }
}
