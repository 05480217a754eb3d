import CProviderABI
import ProviderKit
import Synchronization

/// Name of the provider, as in its driver file.
let providerName: StaticString = "soft"

enum Log {
    /// Address of the core that entered us, the first if there are several; 0 before that.
    private static let entered = Atomic<UInt>(0)

    /// The core that gets our messages.
    static var core: UnsafePointer<rdma_core>? {
        UnsafePointer(bitPattern: entered.load(ordering: .acquiring))
    }

    /// Takes note of a core that has entered us.
    static func adopt(_ core: UnsafePointer<rdma_core>) {
        _ = entered.compareExchange(
            expected: 0, desired: UInt(bitPattern: core), successOrdering: .releasing, failureOrdering: .relaxed)
    }
}

extension Sentence {
    /// Hands the text to the core's log.
    func log(_ level: rdma_log_level) {
        guard let log = Log.core?.pointee.log else { return }
        withCString { log(level, providerName.cString, $0) }
    }
}
