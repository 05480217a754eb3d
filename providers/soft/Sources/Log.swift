import CProviderABI
import ProviderKit

/// Name of the provider, as in its driver file.
let providerName: StaticString = "soft"

extension MessageText {
    /// Logs the text with `rdma_core.log`.
    func log(_ level: rdma_log_level) { log(level, provider: providerName) }
}
