import CKernelABI
import CLinux
import KernelVerbs

extension Ring {
    /// Maps a queue that the kernel offers in its answer. The offer is good for one mapping.
    /// - Parameter entrySize: what an entry must at least have.
    /// - Throws: EPROTO when the kernel offers nothing, or nothing that looks like a queue.
    init(mapping offer: mminfo, of context: NativeContextPointer, entrySize: Int32) throws(KernelError) {
        let size = Int(offer.size)
        guard size > 0 else { throw KernelError(rawValue: EPROTO) }
        guard let memory = linux_map_file(context.pointee.kernel.descriptor, offer.offset, size) else {
            throw KernelError(rawValue: linux_errno())
        }
        guard let ring = Ring(mapping: memory, byteCount: size, entrySize: Int(entrySize)) else {
            linux_unmap(memory, size)
            throw KernelError(rawValue: EPROTO)
        }
        self = ring
    }

    /// Ends the mapping: nobody may use the queue any more.
    func unmap() { if !isAbsent { linux_unmap(mapping, byteCount) } }
}
