import CLinux
import Glibc

extension SoftwareService {
    /// The network interfaces that RDMA_SOFT_INTERFACES names: their addresses are served by software devices, where the
    /// kernel's rdma_cm could serve them too.
    package static var namedInterfaces: [String] {
        guard let setting = linux_getenv("RDMA_SOFT_INTERFACES") else { return [] }
        return String(cString: setting).split(separator: ",").map { $0.filter { $0 != " " } }.filter { !$0.isEmpty }
    }

    /// Whether RDMA_SOFT_INTERFACES names the interface of that index.
    package static func isNamed(_ index: UInt32) -> Bool {
        guard index != 0 else { return false }
        return namedInterfaces.contains { if_nametoindex($0) == index }
    }
}
