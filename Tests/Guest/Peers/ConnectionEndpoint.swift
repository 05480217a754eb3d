import ConnectionManager
import Foundation
import Testing
import ToolSupport
import Verbs

/// One endpoint of a connection: a queue pair with its own memory region and completion queue.
final class ConnectionEndpoint: @unchecked Sendable {
    // Unchecked: one task at a time uses it.
    let context: Context
    let domain: ProtectionDomain
    let memory: MemoryRegion
    var completions: CompletionQueue
    var pair: QueuePair

    init(
        on context: Context, _ kind: QueuePairType = .reliableConnection,
        access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic]
    ) throws {
        self.context = context
        domain = try context.makeProtectionDomain()
        memory = try domain.makeMemoryRegion(
            byteCount: 65_536, access: access)
        completions = try context.makeCompletionQueue(capacity: 256)
        pair = try domain.makeQueuePair(kind, completions: completions)
    }

    func prepare(for connector: Connector) throws { try connector.prepare(pair) }
    func prepare(for request: ConnectionRequest) throws { try request.prepare(pair) }

    /// Connects the queue pair; the active side of the connection.
    func connect(
        _ connector: Connector, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = .seconds(300)
    ) async throws(ConnectionError) -> Connection {
        try await connector.connect(pair, parameters: parameters, privateData: privateData, timeout: timeout)
    }

    /// Accepts the connection request with the queue pair; the passive side of the connection.
    func accept(
        _ request: ConnectionRequest, parameters: ConnectionParameters = .init(), privateData: [UInt8] = []
    ) async throws(ConnectionError) -> Connection {
        try await request.accept(pair, parameters: parameters, privateData: privateData, timeout: .seconds(300))
    }

    func receive(_ range: Range<Int>, count: Int = 1) throws {
        for _ in 0..<count { try pair.postReceive(try memory.sge(range)) }
    }

    /// Returns the next completion; throws if its status is not success.
    @discardableResult
    func completion() throws -> WorkCompletion {
        let completion = try completions.poll(timeout: .seconds(300))
        try completion.check()
        return completion
    }

    /// Polls all remaining completions, each of which must be flushed.
    func drain() {
        while let completion = try? completions.poll() { #expect(completion.status == .flushed) }
    }

    /// The destination for a response to the sender of a datagram. On RoCE v2 over IPv4, the IPv4 header is the last 20
    /// of the 40 bytes before the data (IBTA annex 17), and the source address is at offset 12 in it.
    func destination(of completion: WorkCompletion, number: UInt32) throws -> DatagramDestination {
        let octets = try memory.copyBytes(32..<36)
        let local = try context.address()
        let route = AddressVector.GlobalRoute(
            gid: GID(ipv4: octets[0], octets[1], octets[2], octets[3]), sourceIndex: local.gidIndex)
        // The Q_Key of all datagram services of rdma_cm (RDMA_UDP_QKEY).
        return DatagramDestination(
            handle: try domain.makeAddressHandle(AddressVector(port: local.port, route: route)),
            queuePairNumber: number, qkey: 0x0123_4567)
    }

    func acceptDatagrams(_ request: ConnectionRequest, privateData: [UInt8] = []) throws {
        try request.acceptDatagrams(pair, privateData: privateData)
    }

    func join(_ connector: Connector) async throws(ConnectionError) -> MulticastMembership {
        try await connector.join(pair, timeout: .seconds(300))
    }

    /// The text in a range of the memory, up to its zero byte.
    func text(_ range: Range<Int>) throws -> String {
        String(decoding: try memory.copyBytes(range).prefix { $0 != 0 }, as: UTF8.self)
    }

    func write(_ bytes: [UInt8], at offset: Int = 0) throws {
        try memory.copyBytes(from: bytes.span.bytes, at: offset)
    }
}

/// Two connected endpoints: `left` is the active side, `right` the passive one. Each has posted four receives.
typealias ConnectedPair = (
    left: (ConnectionEndpoint, Connection), right: (ConnectionEndpoint, Connection), request: ConnectionRequest
)

/// Connects two endpoints.
/// - Parameters:
///   - makeLeft, makeRight: Make the endpoint on the device to which rdma_cm leads.
///   - request, reply: The private data of the request and of the acceptance.
func connectPair(
    to address: ConnectionAddress, at listener: Listener, left makeLeft: (Context) throws -> ConnectionEndpoint,
    right makeRight: (Context) throws -> ConnectionEndpoint, request: [UInt8], reply: [UInt8]
) async throws -> ConnectedPair {
    let connector = try await Connector.resolve(address)
    let left = try makeLeft(connector.openDevice())
    try left.prepare(for: connector)
    try left.receive(0..<4096, count: 4)
    async let active = left.connect(connector, privateData: request)
    let incoming = try #require(try await listener.next())
    let right = try makeRight(incoming.openDevice())
    try right.prepare(for: incoming)
    try right.receive(0..<4096, count: 4)
    let passive = try await right.accept(incoming, privateData: reply)
    return ((left, try await active), (right, passive), incoming)
}

/// Sends one message from `left` to `right`.
func send(_ text: String, from left: ConnectionEndpoint, to right: ConnectionEndpoint) throws {
    try left.write(Array(text.utf8) + [0], at: 8192)
    try left.pair.postSend(.send, left.memory.sge(8192..<8193 + text.utf8.count))
    try left.completion()
    #expect(try right.completion().opcode == .receive)
    #expect(try right.text(0..<64) == text)
}

/// Runs the tests of rdma_cm, each in its own process: librdmacm keeps devices open until its process exits, and a
/// device that is open cannot be removed.
enum ConnectionBench {
    /// The RDMA objects that this process has in the kernel, except the open device.
    static func leftovers() async throws -> String {
        let own = "pid \(getpid()) "
        let all = try await Bench.shell(
            "for kind in qp cq pd mr cm_id srq; do rdma resource show $kind; done")
        return all.split(separator: "\n").filter { $0.contains(own) }.joined(separator: "\n")
    }

    /// Runs `body`. Afterwards this process must have no RDMA objects in the kernel.
    static func run(_ body: () async throws -> Void) async throws {
        // The standard error of an exit test's process is not captured; the guest's console is in the log.
        dup2(open("/dev/console", O_WRONLY), STDERR_FILENO)
        do { try await body() } catch { Issue.record("\(error)") }
        #expect(try await leftovers() == "")
    }
}

/// The `ConnectionError` that `body` throws, or nil if it throws none.
func failure(_ body: () async throws -> Void) async -> ConnectionError? {
    do {
        try await body()
        return nil
    } catch let error as ConnectionError {
        return error
    } catch {
        Issue.record("\(error)")
        return nil
    }
}

extension [UInt8] {
    /// Whether the array begins with `bytes` and has only zeroes after them, as received private data has.
    func isPadded(_ bytes: [UInt8]) -> Bool {
        starts(with: bytes) && dropFirst(bytes.count).allSatisfy { $0 == 0 }
    }
}
