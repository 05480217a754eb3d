import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs

/// Queues that rdmavt and this process share. The head of each is two indices, the only truth about what is in it; the
/// number and the size of the entries are known from the limits, as the kernel has granted them, and are kept here:
/// whatever the memory says later, an access lies within the mapping.
///
/// | queue      | head: next to be written | tail: next to be read |
/// |------------|--------------------------|-----------------------|
/// | receive    | we                       | kernel                |
/// | completion | kernel                   | we                    |
///
/// Empty: the indices are equal. Full: one more entry would make them equal, so there is one place more than the limit.
struct Mapping {
    let memory: UnsafeMutableRawPointer
    let byteCount: Int

    /// Maps a queue that the kernel offers in its answer. The offer is good for one mapping.
    /// - Parameters:
    ///   - offer: offset into the uverbs node.
    ///   - places: number of entries.
    ///   - size: of an entry.
    /// - Throws: EPROTO when the kernel offers nothing.
    init(offer: UInt64, places: Int, size: Int, of context: NativeContextPointer) throws(KernelError) {
        guard offer != 0 else { throw KernelError(rawValue: EPROTO) }
        byteCount = Int(RVT_QUEUE_ENTRIES) + places * size
        guard let memory = linux_map_file(context.pointee.kernel.descriptor, offer, byteCount) else {
            throw KernelError(rawValue: linux_errno())
        }
        self.memory = memory
    }

    /// A queue in memory that is there already.
    init(memory: UnsafeMutableRawPointer, byteCount: Int) {
        self.memory = memory
        self.byteCount = byteCount
    }

    /// The queue where there is none: both indices are 0, for ever.
    static var absent: Mapping { Mapping(memory: absentMemory, byteCount: 0) }

    /// Ends the mapping: nobody may use the queue any more.
    func unmap() { if byteCount > 0 { linux_unmap(memory, byteCount) } }
}

nonisolated(unsafe) private let absentMemory: UnsafeMutableRawPointer = {
    let head = UnsafeMutableRawPointer.allocate(byteCount: Int(RVT_QUEUE_ENTRIES), alignment: 8)
    head.initializeMemory(as: UInt8.self, repeating: 0, count: Int(RVT_QUEUE_ENTRIES))
    return head
}()
