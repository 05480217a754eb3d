import CProviderABI
import ProviderKit
import SoftTestSupport
import Synchronization

/// What the provider logs.
enum ProviderLog {
    private static let lines = Mutex("")

    /// Passes the log on to `lines` as well, for the rest of the process. The core is that of the first test that opened a
    /// device.
    private static let isListening: Bool = {
        _ = Provider.builtIn
        let core = UnsafeMutablePointer(mutating: ProviderCore.pointer!)
        previous = core.pointee.log
        core.pointee.log = { level, provider, text in
            if let text {
                let line = String(cString: text) + "\n"
                ProviderLog.lines.withLock { $0 += line }
            }
            ProviderLog.previous?(level, provider, text)
        }
        return true
    }()
    /// Set once, before the function that reads it is.
    private nonisolated(unsafe) static var previous = Provider.core.pointee.log

    /// Calls `body`, and returns what the provider has logged meanwhile.
    static func during(_ body: () throws -> Void) rethrows -> String {
        _ = isListening
        lines.withLock { $0 = "" }
        try body()
        return lines.withLock { $0 }
    }
}
