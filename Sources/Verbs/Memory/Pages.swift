import CLinux
import CSoftExtension
import Glibc
import SystemPackage

/// Zeroed memory of whole pages, which nothing else of this process shares: a write of the device cannot reach the heap. A
/// child of fork(2) inherits a copy (``ForkSupport``). On soft, other processes of the host can map it (rdma_soft.h).
final class Pages: @unchecked Sendable {
    // Unchecked: the pointer never changes; the memory behind it is shared with the device by design.

    /// The first byte, at the start of a page.
    let base: UnsafeMutableRawPointer
    private let mappedCount: Int
    /// The open device whose provider has allocated the memory; nil for memory of mmap(2).
    private let provider: Context?

    /// - Throws: `ENOMEM`, `EINVAL` for a count below 1.
    init(byteCount: Int, for object: VerbsObject, of context: Context) throws(VerbsError) {
        let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))
        guard byteCount > 0, byteCount <= Int.max - pageSize else {
            throw VerbsError(
                .regMR, errno: .invalidArgument, object: object, hint: "\(byteCount) bytes cannot be registered")
        }
        if let memory = context.softMemory?.pointee.alloc(context.unsafeRaw, byteCount) {
            base = memory
            mappedCount = byteCount
            provider = context
            return
        }
        provider = nil
        mappedCount = (byteCount + pageSize - 1) / pageSize * pageSize
        guard let base = mmap(nil, mappedCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            base != MAP_FAILED
        else {
            throw VerbsError(
                .regMR, errno: Errno(rawValue: errno), object: object,
                hint: "there is no room for \(Advice.byteText(UInt64(byteCount)))")
        }
        self.base = base
    }

    deinit {
        guard let provider else {
            munmap(base, mappedCount)
            return
        }
        // The arenas of a child are the copies of its parent.
        if !linux_is_forked_child() { provider.softMemory?.pointee.free(provider.unsafeRaw, base, mappedCount) }
    }
}

extension Context {
    /// The functions of the provider soft for memory that other processes of the host can map; nil on other devices.
    fileprivate var softMemory: UnsafePointer<rdma_soft_memory>? {
        providerExtension("soft-memory", version: UInt32(RDMA_SOFT_MEMORY_VERSION))?
            .assumingMemoryBound(to: rdma_soft_memory.self)
    }
}
