import CLinux
import CProviderABI
import CProviderCore
import Locking

/// The messages of all providers in this process. There is one log, because `rdma_core.log` has no context argument.
final class ProcessLog: Sendable {
    static let shared = ProcessLog()

    /// Largest number of warnings and errors that are kept.
    static let capacity = 256

    private struct State {
        var kept: [LogMessage] = []
        var handlers: [ObjectIdentifier: @Sendable (LogMessage) -> Void] = [:]
    }

    private let state = Locked(State())

    /// The kept warnings and errors: each once, in the order of their last occurrences.
    var kept: [LogMessage] { state.withLock { $0.kept } }

    /// Hands every message to `handler` until `remove(owner)`.
    func add(_ owner: ObjectIdentifier, _ handler: @escaping @Sendable (LogMessage) -> Void) {
        state.withLock { state in
            state.handlers[owner] = handler
            rdma_set_log_level(RDMA_LOG_DEBUG)
        }
    }

    /// Hands no further message to the handler of `owner`.
    func remove(_ owner: ObjectIdentifier) {
        state.withLock { state in
            state.handlers.removeValue(forKey: owner)
            if state.handlers.isEmpty { rdma_set_log_level(RDMA_LOG_WARNING) }
        }
    }

    /// Keeps a warning or an error, and hands any message to all handlers, outside the lock.
    func record(_ message: LogMessage) {
        let handlers = state.withLock { state in
            if message.level <= .warning {
                if let earlier = state.kept.lastIndex(of: message) {
                    state.kept.remove(at: earlier)
                } else if state.kept.count == ProcessLog.capacity {
                    state.kept.removeFirst()
                }
                state.kept.append(message)
            }
            return Array(state.handlers.values)
        }
        for handler in handlers { handler(message) }
    }
}

/// The `struct rdma_core` of this process, which every provider receives.
enum Core {
    /// It is never freed.
    nonisolated(unsafe) static let pointer: UnsafePointer<rdma_core> = {
        // `log_level` is set, and may have been set before this: by the handlers of the log.
        let core = rdma_core_of_process()!
        core.pointee.size = UInt32(MemoryLayout<rdma_core>.size)
        core.pointee.abi_major = ABIVersion.core.major
        core.pointee.abi_minor = ABIVersion.core.minor
        core.pointee.version = permanentCopy(RDMA_CORE_VERSION)
        core.pointee.log = { level, provider, message in
            ProcessLog.shared.record(
                LogMessage(
                    level: LogMessage.Level(rawValue: level.rawValue), provider: text(provider),
                    text: text(message)))
        }
        core.pointee.explain = rdma_keep_explanation
        core.pointee.flags = linux_is_privileged() != 0 ? RDMA_CORE_RAISED_PRIVILEGES.rawValue : 0
        core.pointee.kernel = rdma_core_kernel_ops()
        return UnsafePointer(core)
    }()
}

extension ProviderLoader {
    /// The warnings and errors that providers and loaders have logged in this process: each once, at most 256, in the
    /// order of their last occurrences.
    public static var messages: [LogMessage] { ProcessLog.shared.kept }

    /// Keeps a warning or an error, and hands it to the log handlers of all loaders.
    package static func record(_ message: LogMessage) { ProcessLog.shared.record(message) }
}

/// A C string that is never freed, for structs that are never freed.
func permanentCopy(_ string: String) -> UnsafePointer<CChar> {
    let copy = UnsafeMutablePointer<CChar>.allocate(capacity: string.utf8.count + 1)
    for (index, byte) in string.utf8.enumerated() { copy[index] = CChar(bitPattern: byte) }
    copy[string.utf8.count] = 0
    return UnsafePointer(copy)
}

/// A provider's string as one line. Control characters become blanks, so that they cannot disturb a terminal.
func text(_ string: UnsafePointer<CChar>?) -> String {
    guard let string else { return "" }
    return oneLine(String(cString: string))
}

/// The message that a provider has stored, or a substitute where it stored none.
func text(_ reason: rdma_reason) -> String {
    let bytes = withUnsafeBytes(of: reason.text) { Array($0.prefix { $0 != 0 }) }
    let message = oneLine(String(decoding: bytes, as: UTF8.self))
    return message.isEmpty ? "it gave no reason" : message
}

private func oneLine(_ string: String) -> String {
    var line = String.UnicodeScalarView()
    for scalar in string.unicodeScalars {
        line.append(scalar.properties.generalCategory == .control ? " " : scalar)
    }
    while line.last == " " { line.removeLast() }
    return String(line)
}
