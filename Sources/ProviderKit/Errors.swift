import CLinux

/// What a function that answers a pointer does when it refuses: sets errno and answers nil (rdma_provider.h,
/// chapter 3).
public func failure<Object: ~Copyable>(_ error: Int32) -> UnsafeMutablePointer<Object>? {
    linux_set_errno(error)
    return nil
}
