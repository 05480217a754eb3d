import Glibc
import SystemPackage

/// Zeroed memory of whole pages, which nothing else shares: a write of the device cannot reach the heap. A child of fork(2)
/// inherits a copy (``ForkSupport``).
final class Pages: @unchecked Sendable {
    // Unchecked: the pointer never changes; the memory behind it is shared with the device by design.

    /// The first byte, at the start of a page.
    let base: UnsafeMutableRawPointer
    private let mappedCount: Int

    /// - Throws: `ENOMEM`, `EINVAL` for a count below 1.
    init(byteCount: Int, for object: VerbsObject) throws(VerbsError) {
        let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))
        guard byteCount > 0, byteCount <= Int.max - pageSize else {
            throw VerbsError(
                .regMR, errno: .invalidArgument, object: object, hint: "\(byteCount) bytes cannot be registered")
        }
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

    deinit { munmap(base, mappedCount) }
}
