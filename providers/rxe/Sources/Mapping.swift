import CKernelABI
import CLinux
import KernelVerbs

extension Ring {
    /// Maps a queue at the mmap offset of the kernel's response (`struct mminfo`). An offset can be mapped once.
    /// - Parameter entrySize: The minimum size of a WQE or CQE in bytes.
    /// - Throws: EPROTO when `size` is 0, or the mapping is not a valid `struct rxe_queue_buf`; the errno of mmap(2).
    init(mapping info: mminfo, of context: NativeContextPointer, entrySize: Int32) throws(KernelError) {
        let size = Int(info.size)
        guard size > 0 else { throw KernelError.unknownLayout() }
        guard let memory = linux_map_file(context.pointee.kernel.descriptor, info.offset, size) else {
            throw KernelError(rawValue: linux_errno())
        }
        guard let ring = Ring(mapping: memory, byteCount: size, entrySize: Int(entrySize)) else {
            linux_unmap(memory, size)
            throw KernelError.unknownLayout()
        }
        self = ring
    }

    /// Unmaps the queue. It must not be accessed afterwards.
    func unmap() { if !isAbsent { linux_unmap(mapping, byteCount) } }
}
