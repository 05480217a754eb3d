import CLinux
import Glibc
import Locking
import ProviderLoader
import SystemPackage

/// What fork(2) means for registered memory: ibv_fork_init(3), ibv_is_fork_initialized(3).
///
/// A child of fork(2) may call exec and `_exit`, and use its copy of the memory. Every object belongs to the parent: in the
/// child a call throws `EPERM`, and an object that is released there is not destroyed. Posting to a kernel device, and
/// polling it, ends the child with SIGSEGV instead, because it has no queues.
///
/// The parent goes on as before. Since Linux 5.12 the kernel copies registered memory for the child, so that the
/// device and the parent keep their pages, and nothing needs to be initialized. On an older kernel the first write of the
/// parent after fork(2) moves a page away from the device; there, a program that calls fork(2) calls ``initialize()``
/// first. `soft` registers no memory with the kernel and never needs it. There, other processes map the memory of
/// `ProtectionDomain.makeMemoryRegion`: a page of the child's copy shows what the parent writes until the child has
/// written to it.
public enum ForkSupport {
    /// The result of `ibv_is_fork_initialized` (`enum ibv_fork_status`).
    public enum Status: Sendable, Hashable {
        /// The kernel does not protect registered memory, and ``ForkSupport/initialize()`` was not called
        /// (`IBV_FORK_DISABLED`).
        case disabled
        /// Children do not inherit the pages of registered memory (`IBV_FORK_ENABLED`).
        case enabled
        /// The kernel copies registered memory for a child (`IBV_FORK_UNNEEDED`).
        case unneeded
    }

    /// Makes fork(2) safe for memory that kernel devices register from now on: ibv_fork_init(3).
    ///
    /// On a kernel that copies registered memory it changes nothing. On another one a child does not inherit the pages of
    /// registered memory (`MADV_DONTFORK`), nor whatever else lies in them: it ends with SIGSEGV when it accesses them.
    /// The environment variables `RDMAV_FORK_SAFE` and `IBV_FORK_SAFE` have the same effect.
    ///
    /// - Throws: `EINVAL` when memory was registered before.
    public static func initialize() throws(VerbsError) {
        let isTooLate = state.withLock { state in
            guard !state.isEnabled, !kernelCopies else { return false }
            if state.hasRegistered { return true }
            state.isEnabled = true
            ProviderLoader.requestForkSafety()
            return false
        }
        guard isTooLate else { return }
        throw VerbsError(
            .forkInit, errno: .invalidArgument, object: VerbsObject("this process", device: ""),
            hint: "memory was registered before: call it before the first registration")
    }

    /// Whether fork(2) is safe for registered memory: ibv_is_fork_initialized(3).
    public static var status: Status {
        kernelCopies ? .unneeded : state.withLock { $0.isEnabled } ? .enabled : .disabled
    }

    private struct State {
        var isEnabled = false
        var hasRegistered = false
        var pages = MarkedPages()
    }

    private static let state = Locked(State())

    /// Whether the kernel copies pinned pages at fork(2) (`RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK`).
    private static let kernelCopies = ProviderLoader.kernelCopiesOnFork()

    /// Whether the environment asks for ``initialize()``, as libibverbs does.
    private static let isWantedByEnvironment = getenv("RDMAV_FORK_SAFE") != nil || getenv("IBV_FORK_SAFE") != nil

    /// Keeps the pages of memory that is about to be registered from children of fork(2), if ``initialize()`` was called.
    ///
    /// - Returns: The pages, for ``release(_:)``; nil where nothing is marked.
    /// - Throws: The errno value of madvise(2).
    static func mark(_ memory: UnsafeMutableRawBufferPointer, for context: Context) throws(VerbsError) -> Range<UInt>? {
        if context.isSoftware { return nil }
        if isWantedByEnvironment { try? initialize() }
        var marked: Range<UInt>?
        let error = state.withLock { state -> CInt in
            state.hasRegistered = true
            guard state.isEnabled, let pages = MarkedPages.pages(of: memory) else { return 0 }
            marked = pages
            return state.pages.mark(pages)
        }
        guard error == 0 else {
            throw VerbsError(
                .regMR, errno: Errno(rawValue: error), object: context.object("memory", UInt64?.none),
                hint: "its pages cannot be kept from children of fork(2) (madvise(2), MADV_DONTFORK)")
        }
        return marked
    }

    /// Lets children of fork(2) inherit the pages again, where no other registration needs them.
    static func release(_ pages: Range<UInt>?) {
        guard let pages else { return }
        state.withLock { $0.pages.release(pages) }
    }
}
