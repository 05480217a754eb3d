import ConnectionManager
import Dispatch
import Synchronization
import Verbs

// Connecting queue pairs by the connection manager (rdma_cm) instead of exchanged endpoints: --rdma-cm, and
// always on iWARP adapters, whose queue pairs the kernel connects.

extension Setup {
    /// Throws if rdma_cm cannot connect these queue pairs.
    func checkConnectionManager() throws(ToolError) {
        guard usesConnectionManager else { return }
        guard queuePairs == 1 else {
            throw ToolError(
                .usage, "rdma_cm and iWARP connect one queue pair, not \(queuePairs)",
                hint: "leave out --queue-pairs, or --rdma-cm; an iWARP device always needs rdma_cm")
        }
        guard transport != .rc else { return }
        throw ToolError(
            .usage, "rdma_cm and iWARP connect RC queue pairs, not \(transport.name)", hint: "use --transport rc")
    }
}

/// The server's listener.
struct ServerListener {
    private let listener: Listener

    /// Listens at a port that the kernel chooses.
    init() throws(ToolError) {
        do throws(ConnectionError) { listener = try Listener(port: 0) } catch { throw ToolError(error) }
    }

    var port: UInt16 { listener.port }

    /// Waits for the client's request, and accepts it with the queue pair of `link`.
    func accept(_ link: inout Link, on context: Context, _ control: ControlConnection) throws {
        let listener = listener
        let request = try waiting(control) { () async throws(ConnectionError) in try await listener.next() }
        guard let request else { throw ToolError.protocolError }
        try context.requireDevice(request.deviceName)
        do throws(ConnectionError) { try request.prepare(link.queuePairs[0].pointee) } catch { throw ToolError(error) }
        try link.postReceives()
        // The link has the queue pair until the task has ended.
        nonisolated(unsafe) let queuePair = UnsafePointer(link.queuePairs[0])
        link.connection = try waiting(control) { () async throws(ConnectionError) in
            try await request.accept(queuePair.pointee)
        }
    }
}

extension Link {
    /// Connects to the server's listener.
    mutating func connect(
        to host: String, port: UInt16, on context: Context, _ control: ControlConnection
    ) throws {
        let connector = try waiting(control) { () async throws(ConnectionError) in
            try await Connector.resolve(host, port: port)
        }
        try context.requireDevice(connector.deviceName)
        do throws(ConnectionError) { try connector.prepare(queuePairs[0].pointee) } catch { throw ToolError(error) }
        try postReceives()
        // The link has the queue pair until the task has ended.
        nonisolated(unsafe) let queuePair = UnsafePointer(queuePairs[0])
        connection = try waiting(control) { () async throws(ConnectionError) in
            try await connector.connect(queuePair.pointee)
        }
    }
}

extension Link {
    /// Ends the connection that rdma_cm has made, if there is one. Otherwise the program may end before the identifier is
    /// released, and the peer be told nothing. Both sides call it: the second one sends the reply.
    func disconnect() {
        do throws(ConnectionError) { try connection?.identifier.disconnect() } catch {
            // The peer has ended the connection, or the device is gone: nothing is left to be told.
        }
    }
}

extension Context {
    /// Throws unless rdma_cm has found the way over this device.
    fileprivate func requireDevice(_ name: String) throws(ToolError) {
        guard name != deviceName else { return }
        throw ToolError(
            .unsupported, "rdma_cm leads to the peer over \(name), and the queue pair is on \(deviceName)",
            hint: "use --device \(name), or leave out --rdma-cm")
    }
}

/// Runs a task, and checks the peer and signals meanwhile. Throws the error of the task, or the peer's. When it
/// returns, the task has ended.
private func waiting<Value: Sendable>(
    _ control: ControlConnection, _ body: @escaping @Sendable () async throws(ConnectionError) -> Value
) throws -> Value {
    let outcome = Outcome<Value>()
    let task = Task.detached {
        do throws(ConnectionError) { outcome.end(.success(try await body())) } catch { outcome.end(.failure(error)) }
    }
    while true {
        if let result = outcome.wait(milliseconds: 5) {
            do throws(ConnectionError) { return try result.get() } catch { throw ToolError(error) }
        }
        do throws(ToolError) {
            _ = try control.checkPeer(now: Clock.now())
        } catch {
            task.cancel()
            while outcome.wait(milliseconds: 1000) == nil {}
            throw error
        }
        if Interrupt.isRequested { task.cancel() }
    }
}

/// The outcome of a task for which a thread waits.
private final class Outcome<Value: Sendable>: Sendable {
    private let result = Mutex<Result<Value, ConnectionError>?>(nil)
    private let ended = DispatchSemaphore(value: 0)

    func end(_ result: Result<Value, ConnectionError>) {
        self.result.withLock { $0 = result }
        ended.signal()
    }

    /// The result; nil when the task has not ended in time.
    func wait(milliseconds: Int) -> Result<Value, ConnectionError>? {
        guard ended.wait(timeout: .now() + .milliseconds(milliseconds)) == .success else { return nil }
        return result.withLock { $0 }
    }
}

extension ToolError {
    /// rdma_cm could not connect the queue pairs.
    init(_ error: ConnectionError) {
        if case .verbs(let error) = error.reason {
            self.init(error)
            return
        }
        let (text, hint) = (error.description, error.hint)
        let message = hint.map { text.hasSuffix("; \($0)") ? String(text.dropLast($0.count + 2)) : text } ?? text
        self.init(.cannotConnect, message, hint: hint ?? "leave out --rdma-cm, or run verbs doctor")
    }
}
