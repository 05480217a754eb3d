import CKernelABI
import ProviderKit

/// A queue that rdma_rxe and this process share: `struct rxe_queue_buf` of <rdma/rdma_user_rxe.h>, mapped.
///
/// | queue            | producer | consumer |
/// |------------------|----------|----------|
/// | send, receive    | we       | kernel   |
/// | completion       | kernel   | we       |
///
/// Both indices lie in the shared memory, and are the only truth. Empty: they are equal. Full: one more entry would make
/// them equal. The size of the entries and their number are read once, here: whatever the memory says later, and whatever
/// an index says, an entry lies within the mapping.
struct Ring {
    /// The first entry.
    private let entries: UnsafeMutableRawPointer
    /// The number of places less one: a power of two less one.
    let mask: UInt32
    /// Logarithm of the size of an entry.
    private let shift: UInt32
    /// Length of the mapping.
    let byteCount: Int

    /// The queue in a mapping of `byteCount` bytes. Nil when its head does not describe a queue with entries of at least
    /// `entrySize` bytes that lies within the mapping.
    init?(mapping: UnsafeMutableRawPointer, byteCount: Int, entrySize: Int) {
        guard byteCount >= Int(RXE_QUEUE_DATA) else { return nil }
        let shift = mapping.load(fromByteOffset: Int(RXE_QUEUE_LOG2_ELEMENT_SIZE), as: UInt32.self)
        let mask = mapping.load(fromByteOffset: Int(RXE_QUEUE_INDEX_MASK), as: UInt32.self)
        guard shift < 32, 1 << Int(shift) >= entrySize, mask < UInt32.max, mask & (mask + 1) == 0,
            (Int(mask) + 1) << Int(shift) <= byteCount - Int(RXE_QUEUE_DATA)
        else { return nil }
        entries = mapping + Int(RXE_QUEUE_DATA)
        self.mask = mask
        self.shift = shift
        self.byteCount = byteCount
    }

    /// Where the mapping begins.
    var mapping: UnsafeMutableRawPointer { entries - Int(RXE_QUEUE_DATA) }

    /// The queue where there is none: always empty, and always full.
    static var absent: Ring { Ring(entries: absentMemory + Int(RXE_QUEUE_DATA), mask: 0, shift: 0) }

    private init(entries: UnsafeMutableRawPointer, mask: UInt32, shift: UInt32) {
        self.entries = entries
        self.mask = mask
        self.shift = shift
        byteCount = 0
    }

    /// Whether there is none. A queue for no requests is one: of a single place, always empty and always full.
    var isAbsent: Bool { byteCount == 0 }

    /// The size of an entry in bytes.
    @inline(__always)
    var entrySize: Int { 1 &<< Int(shift) }

    @inline(__always)
    var producer: SharedIndex { SharedIndex(at: entries + Int(RXE_QUEUE_PRODUCER - RXE_QUEUE_DATA)) }

    @inline(__always)
    var consumer: SharedIndex { SharedIndex(at: entries + Int(RXE_QUEUE_CONSUMER - RXE_QUEUE_DATA)) }

    /// The entry of an index, which is not greater than the mask.
    @inline(__always)
    func entry(_ index: UInt32) -> UnsafeMutableRawPointer {
        entries + Int(truncatingIfNeeded: UInt64(index) &<< UInt64(shift))
    }

    /// The index of an entry.
    @inline(__always)
    func index(of entry: UnsafeRawPointer) -> UInt32 {
        UInt32(truncatingIfNeeded: UInt64(UInt(bitPattern: entry - UnsafeRawPointer(entries))) &>> UInt64(shift))
    }

    /// The index behind another.
    @inline(__always)
    func next(_ index: UInt32) -> UInt32 { (index &+ 1) & mask }
}

/// The head of the absent queue: both indices are 0, for ever.
nonisolated(unsafe) private let absentMemory: UnsafeMutableRawPointer = {
    let head = UnsafeMutableRawPointer.allocate(byteCount: Int(RXE_QUEUE_DATA), alignment: 64)
    head.initializeMemory(as: UInt8.self, repeating: 0, count: Int(RXE_QUEUE_DATA))
    return head
}()
