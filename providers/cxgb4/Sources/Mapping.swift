import CLinux
import KernelVerbs

/// Memory of the kernel or of the adapter, mapped from the uverbs node. A key can be mapped once, with its exact length.
struct Mapping {
    let start: UnsafeMutableRawPointer
    let byteCount: Int

    /// Maps a queue.
    /// - Parameters:
    ///   - key: The offset in the kernel's response.
    ///   - byteCount: The size in the kernel's response.
    ///   - least: The number of bytes that the provider accesses.
    /// - Throws: EPROTO if the queue is smaller.
    init(
        queueAt key: UInt64, byteCount: UInt64, least: Int, _ kernel: borrowing KernelDevice
    ) throws(KernelError) {
        guard byteCount >= UInt64(least), byteCount <= UInt64(Int32.max) else { throw KernelError.unknownLayout() }
        guard let memory = linux_map_file(kernel.descriptor, key, Int(byteCount)) else {
            throw KernelError(rawValue: linux_errno())
        }
        start = memory
        self.byteCount = Int(byteCount)
    }

    /// Maps a page of doorbells.
    init(registersAt key: UInt64, _ kernel: borrowing KernelDevice) throws(KernelError) {
        byteCount = Int(linux_page_size())
        guard let memory = linux_map_registers(kernel.descriptor, key, byteCount) else {
            throw KernelError(rawValue: linux_errno())
        }
        start = memory
    }

    /// Maps the status page of the device, which can only be read.
    init(statusPageAt key: UInt64, byteCount: Int, _ kernel: borrowing KernelDevice) throws(KernelError) {
        guard let memory = linux_map_readable(kernel.descriptor, key, byteCount) else {
            throw KernelError(rawValue: linux_errno())
        }
        start = memory
        self.byteCount = byteCount
    }

    func unmap() { linux_unmap(start, byteCount) }
}
