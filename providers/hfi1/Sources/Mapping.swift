import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs

/// The mapping of a queue that rdmavt and this process share (`struct rvt_rwq`, `struct rvt_cq_wc`). It begins with the
/// indices `head` and `tail`, which exist only in the shared memory. The number and the size of the entries follow from
/// the limits that the kernel returned and are not in the mapping, so that every access lies within the mapping,
/// whatever it contains later.
///
/// | queue      | head: next entry to fill, written by | tail: next entry to read, written by |
/// |------------|--------------------------------------|--------------------------------------|
/// | receive    | process                              | kernel                               |
/// | completion | kernel                               | process                              |
///
/// Empty: the indices are equal. Full: one more entry would make them equal. A queue has one entry more than its limit.
struct Mapping {
    let memory: UnsafeMutableRawPointer
    let byteCount: Int

    /// Maps a queue at the mmap offset of the kernel's response. An offset can be mapped once.
    /// - Parameters:
    ///   - offset: The mmap offset on the uverbs file descriptor.
    ///   - entryCount: The number of entries.
    ///   - entrySize: The size of an entry in bytes.
    /// - Throws: EPROTO when the offset is 0; the errno of mmap(2).
    init(offset: UInt64, entryCount: Int, entrySize: Int, of context: NativeContextPointer) throws(KernelError) {
        guard offset != 0 else { throw KernelError.unknownLayout() }
        byteCount = Int(RVT_QUEUE_ENTRIES) + entryCount * entrySize
        guard let memory = linux_map_file(context.pointee.kernel.descriptor, offset, byteCount) else {
            throw KernelError(rawValue: linux_errno())
        }
        self.memory = memory
    }

    /// A queue in existing memory.
    init(memory: UnsafeMutableRawPointer, byteCount: Int) {
        self.memory = memory
        self.byteCount = byteCount
    }

    /// The mapping of an object without a queue. Both indices are always 0.
    static var absent: Mapping { Mapping(memory: absentMemory, byteCount: 0) }

    /// Unmaps the queue. It must not be accessed afterwards.
    func unmap() { if byteCount > 0 { linux_unmap(memory, byteCount) } }
}

nonisolated(unsafe) private let absentMemory: UnsafeMutableRawPointer = {
    let head = UnsafeMutableRawPointer.allocate(byteCount: Int(RVT_QUEUE_ENTRIES), alignment: 8)
    head.initializeMemory(as: UInt8.self, repeating: 0, count: Int(RVT_QUEUE_ENTRIES))
    return head
}()
