import CKernelABI
import ProviderKit

/// A queue that rdma_rxe and this process share: a mapped `struct rxe_queue_buf` of <rdma/rdma_user_rxe.h>. Its entries
/// are WQEs or CQEs.
///
/// | queue            | producer | consumer |
/// |------------------|----------|----------|
/// | send, receive    | process  | kernel   |
/// | completion       | kernel   | process  |
///
/// The producer and consumer index exist only in the shared memory. Empty: they are equal. Full: one more entry would
/// make them equal. The size and the number of the entries are read once, by the initialiser, and indices are masked,
/// so that every access lies within the mapping, whatever the shared memory contains later.
struct Ring {
    /// The first entry (`rxe_queue_buf.data`).
    private let entries: UnsafeMutableRawPointer
    /// The number of entries minus 1 (`index_mask`): a power of two minus 1.
    let mask: UInt32
    /// Base-2 logarithm of the size of an entry (`log2_elem_size`).
    private let shift: UInt32
    /// Length of the mapping in bytes; 0 for `absent`.
    let byteCount: Int

    /// The queue in a mapping of `byteCount` bytes. Nil when its header does not describe a queue with entries of at
    /// least `entrySize` bytes that lies within the mapping.
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

    /// The start of the mapping.
    var mapping: UnsafeMutableRawPointer { entries - Int(RXE_QUEUE_DATA) }

    /// The queue of an object without a queue: always empty and always full.
    static var absent: Ring { Ring(entries: absentMemory + Int(RXE_QUEUE_DATA), mask: 0, shift: 0) }

    private init(entries: UnsafeMutableRawPointer, mask: UInt32, shift: UInt32) {
        self.entries = entries
        self.mask = mask
        self.shift = shift
        byteCount = 0
    }

    /// Whether this is `absent`. A mapped queue with a mask of 0, which is also always empty and always full, is not.
    var isAbsent: Bool { byteCount == 0 }

    /// The size of an entry in bytes.
    @inline(__always)
    var entrySize: Int { 1 &<< Int(shift) }

    @inline(__always)
    var producer: SharedIndex { SharedIndex(at: entries + Int(RXE_QUEUE_PRODUCER - RXE_QUEUE_DATA)) }

    @inline(__always)
    var consumer: SharedIndex { SharedIndex(at: entries + Int(RXE_QUEUE_CONSUMER - RXE_QUEUE_DATA)) }

    /// The entry at an index, which must not exceed the mask.
    @inline(__always)
    func entry(_ index: UInt32) -> UnsafeMutableRawPointer {
        entries + Int(truncatingIfNeeded: UInt64(index) &<< UInt64(shift))
    }

    /// The index of an entry.
    @inline(__always)
    func index(of entry: UnsafeRawPointer) -> UInt32 {
        UInt32(truncatingIfNeeded: UInt64(UInt(bitPattern: entry - UnsafeRawPointer(entries))) &>> UInt64(shift))
    }

    /// The index after `index`.
    @inline(__always)
    func next(_ index: UInt32) -> UInt32 { (index &+ 1) & mask }
}

/// The header of the absent queue. Both indices are always 0.
nonisolated(unsafe) private let absentMemory: UnsafeMutableRawPointer = {
    let head = UnsafeMutableRawPointer.allocate(byteCount: Int(RXE_QUEUE_DATA), alignment: 64)
    head.initializeMemory(as: UInt8.self, repeating: 0, count: Int(RXE_QUEUE_DATA))
    return head
}()
