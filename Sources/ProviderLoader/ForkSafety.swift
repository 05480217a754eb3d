import CProviderCore
import RDMANetlink

extension ProviderLoader {
    /// Whether the kernel copies pinned pages for a child of fork(2) (`RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK`). False where it does
    /// not report it.
    package static func kernelCopiesOnFork() -> Bool {
        (try? KernelRDMA().system().copiesOnFork) ?? false
    }

    /// Tells providers that the program wants fork(2) to be safe on a kernel that does not copy registered memory
    /// (`RDMA_CORE_FORK_SAFE`). It is called before the first registration.
    package static func requestForkSafety() {
        _ = Core.pointer
        rdma_request_fork_safety()
    }
}
