import CRDMACM
import Glibc
import SystemPackage
import Verbs

// rdma_connect(3) on iWARP. The drivers of adapters begin the TCP connection and return; siw waits in the call until the
// peer's host has answered, which takes minutes when a firewall drops the packets. So the call runs in a thread of its own.

extension ManagedConnection {
    /// Calls rdma_connect(3) without blocking a thread of the caller; the events that follow report the outcome.
    ///
    /// The thread is cancelled when the time is over or the task is cancelled: the signal of pthread_cancel(3) ends the
    /// kernel's wait.
    ///
    /// - Throws: `rejected` when the peer's host refused the TCP connection, `unreachable`, `system`, `timedOut`,
    ///   `cancelled`.
    func dial(
        _ parameters: ConnectionParameters, privateData: [UInt8], within timeout: Duration, _ operation: String
    ) async throws(ConnectionError) {
        try identifier.requireConnectable(privateData)
        let call = Dial(self, parameters, privateData)
        try call.start(operation)
        let outcome: Result<Int32?, ConnectionError>
        do throws(ConnectionError) {
            outcome = .success(try await wait(until: .now + timeout, operation) { $0.dialed })
        } catch {
            outcome = .failure(error)
        }
        call.end()
        switch try outcome.get() {
        case 0?: return
        case let code?: throw Self.failure(code, operation)
        case nil: throw ConnectionError(.timedOut(timeout), operation: operation)
        }
    }

    /// The error of rdma_connect(3) on iWARP, as the adapters report it in events.
    private static func failure(_ code: Int32, _ operation: String) -> ConnectionError {
        switch code {
        case ECONNREFUSED: ConnectionError(.rejected(.refused, privateData: []), operation: operation)
        case ECONNRESET: ConnectionError(.rejected(.reset, privateData: []), operation: operation)
        case EHOSTUNREACH, ENETUNREACH, ETIMEDOUT:
            ConnectionError(.unreachable(Errno(rawValue: code)), operation: operation)
        default: ConnectionError("rdma_connect", code: code, operation: operation)
        }
    }
}

/// One call of rdma_connect(3) in a thread. It uses the connection unretained: `end` joins the thread.
private final class Dial {
    private let call = UnsafeMutablePointer<rdmacm_dial>.allocate(capacity: 1)
    private let privateData: UnsafeMutableBufferPointer<UInt8>
    private var thread = pthread_t()

    init(_ connection: ManagedConnection, _ parameters: ConnectionParameters, _ bytes: [UInt8]) {
        privateData = .allocate(capacity: bytes.count)
        _ = privateData.initialize(from: bytes)
        var raw = parameters.withRaw([]) { $0.pointee }
        raw.private_data = UnsafeRawPointer(privateData.baseAddress)
        raw.private_data_len = UInt8(clamping: bytes.count)
        call.initialize(
            to: rdmacm_dial(
                id: connection.identifier.raw, parameters: raw,
                done: { connection, code in
                    let connection = Unmanaged<ManagedConnection>.fromOpaque(connection!).takeUnretainedValue()
                    connection.change { $0.dialed = code }
                }, context: Unmanaged.passUnretained(connection).toOpaque()))
    }

    func start(_ operation: String) throws(ConnectionError) {
        let code = pthread_create(&thread, nil, rdmacm_dial_run, call)
        if code != 0 { throw ConnectionError("pthread_create", code: code, operation: operation) }
    }

    /// Ends the thread, if it has not returned.
    func end() {
        pthread_cancel(thread)
        pthread_join(thread, nil)
    }

    deinit {
        call.deallocate()
        privateData.deallocate()
    }
}
