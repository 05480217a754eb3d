import CProviderABI
import ProviderKit

/// Name of the provider, as in its driver file.
let providerName: StaticString = "soft"

enum Log {
    /// The core that entered us; set once, before anything else runs.
    nonisolated(unsafe) static var core: UnsafePointer<rdma_core>?
}

extension Sentence {
    /// Hands the text to the core's log.
    func log(_ level: rdma_log_level) {
        guard let log = Log.core?.pointee.log else { return }
        withCString { log(level, providerName.cString, $0) }
    }
}
