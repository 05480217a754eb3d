import CLinux
import CProviderABI
import Synchronization

/// The core (`rdma_core`) that called this provider's entry point.
public enum ProviderCore {
    /// The address of the first core that entered; 0 before that.
    private static let entered = Atomic<UInt>(0)

    /// The core that receives log messages (`rdma_core.log`) and explanations (`rdma_explain`); nil before the first
    /// entry.
    public static var pointer: UnsafePointer<rdma_core>? {
        UnsafePointer(bitPattern: entered.load(ordering: .acquiring))
    }

    /// Whether the program has called ibv_fork_init(3) on a kernel that does not copy registered memory
    /// (`RDMA_CORE_FORK_SAFE`).
    public static var wantsForkSafety: Bool {
        guard let pointer else { return false }
        return pointer.pointee.flags & RDMA_CORE_FORK_SAFE.rawValue != 0
    }

    /// Records the first core that calls the entry point.
    static func adopt(_ core: UnsafePointer<rdma_core>) {
        _ = entered.compareExchange(
            expected: 0, desired: UInt(bitPattern: core), successOrdering: .releasing, failureOrdering: .relaxed)
    }
}

/// The failure of a function that returns a pointer: sets errno to `error` and returns nil (rdma_provider.h, chapter
/// 3).
public func failure<Object: ~Copyable>(_ error: Int32) -> UnsafeMutablePointer<Object>? {
    linux_set_errno(error)
    return nil
}

/// Sets errno to `error`, reports the reason `why` to the user (`rdma_explain`), and returns nil.
public func failure<Object: ~Copyable>(_ error: Int32, _ why: StaticString) -> UnsafeMutablePointer<Object>? {
    failure(refusal(error, why))
}

/// The failure of a function that returns an errno value: reports the reason `why` to the user (`rdma_explain`) and
/// returns `error`.
public func refusal(_ error: Int32, _ why: StaticString) -> Int32 {
    rdma_explain(ProviderCore.pointer, error, why.cString)
}

extension MessageText {
    /// Reports this text to the user as the reason for `error` (`rdma_explain`), and returns `error`.
    public func refusal(_ error: Int32) -> Int32 {
        withCString { _ = rdma_explain(ProviderCore.pointer, error, $0) }
        return error
    }

    /// Passes the text to the core's log (`rdma_core.log`).
    public func log(_ level: rdma_log_level, provider: StaticString) {
        guard let log = ProviderCore.pointer?.pointee.log else { return }
        withCString { log(level, provider.cString, $0) }
    }
}
