import CProviderABI

/// What providers have logged in this process. There is one, since `rdma_core.log` carries no context.
final class ProcessLog: Sendable {
    static let shared = ProcessLog()

    /// So many warnings and errors are kept.
    static let capacity = 256

    private struct State {
        var kept: [LogMessage] = []
        var handlers: [ObjectIdentifier: @Sendable (LogMessage) -> Void] = [:]
    }

    private let state = Locked(State())

    /// The warnings and errors that are kept, oldest first.
    var kept: [LogMessage] { state.withLock { $0.kept } }

    /// From now on `handler` gets every message, until `owner` is removed.
    func add(_ owner: ObjectIdentifier, _ handler: @escaping @Sendable (LogMessage) -> Void) {
        state.withLock { $0.handlers[owner] = handler }
    }

    /// The handler of `owner` gets no further message.
    func remove(_ owner: ObjectIdentifier) {
        state.withLock { _ = $0.handlers.removeValue(forKey: owner) }
    }

    /// Keeps a message if it is grave, and hands it to all handlers, outside the lock.
    func record(_ message: LogMessage) {
        let handlers = state.withLock { state in
            if message.level <= .warning {
                if state.kept.count == ProcessLog.capacity { state.kept.removeFirst() }
                state.kept.append(message)
            }
            return Array(state.handlers.values)
        }
        for handler in handlers { handler(message) }
    }
}

/// The core, as every provider of this process sees it.
enum Core {
    /// Lives as long as the process.
    nonisolated(unsafe) static let pointer: UnsafePointer<rdma_core> = {
        let core = UnsafeMutablePointer<rdma_core>.allocate(capacity: 1)
        core.initialize(to: rdma_core())
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
        return UnsafePointer(core)
    }()
}

/// A C string that is never freed, for structs that live as long as the process.
func permanentCopy(_ string: String) -> UnsafePointer<CChar> {
    let copy = UnsafeMutablePointer<CChar>.allocate(capacity: string.utf8.count + 1)
    for (index, byte) in string.utf8.enumerated() { copy[index] = CChar(bitPattern: byte) }
    copy[string.utf8.count] = 0
    return UnsafePointer(copy)
}

/// One line out of a provider's string: control characters become blanks, so that it cannot disturb a terminal.
func text(_ string: UnsafePointer<CChar>?) -> String {
    guard let string else { return "" }
    return oneLine(String(cString: string))
}

/// The sentence that a provider has given, or a stand-in where it gave none.
func text(_ reason: rdma_reason) -> String {
    let bytes = withUnsafeBytes(of: reason.text) { Array($0.prefix { $0 != 0 }) }
    let sentence = oneLine(String(decoding: bytes, as: UTF8.self))
    return sentence.isEmpty ? "it gives no reason" : sentence
}

private func oneLine(_ string: String) -> String {
    var line = String.UnicodeScalarView()
    for scalar in string.unicodeScalars {
        line.append(scalar.properties.generalCategory == .control ? " " : scalar)
    }
    while line.last == " " { line.removeLast() }
    return String(line)
}
