import ConnectionManager
import Foundation
import Testing
import ToolSupport
import Verbs

/// One side of a connection: a queue pair with memory and completions of its own.
final class Party: @unchecked Sendable {
    // Unchecked: one task at a time uses it.
    let context: Context
    let domain: ProtectionDomain
    let memory: MemoryRegion
    var completions: CompletionQueue
    var pair: QueuePair

    init(on context: Context, _ kind: QueuePair.Kind = .reliableConnection) throws {
        self.context = context
        domain = try context.makeProtectionDomain()
        memory = try domain.makeMemoryRegion(
            byteCount: 65_536, access: [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic])
        completions = try context.makeCompletionQueue(capacity: 256)
        pair = try domain.makeQueuePair(kind, completions: completions)
    }

    func prepare(for connector: Connector) throws { try connector.prepare(pair) }
    func prepare(for request: ConnectionRequest) throws { try request.prepare(pair) }

    /// Asks for a connection, with room for `receives` messages.
    func connect(
        _ connector: Connector, parameters: ConnectionParameters = .init(), privateData: [UInt8] = [],
        timeout: Duration = .seconds(20)
    ) async throws(ConnectionError) -> Connection {
        try await connector.connect(pair, parameters: parameters, privateData: privateData, timeout: timeout)
    }

    func accept(
        _ request: ConnectionRequest, parameters: ConnectionParameters = .init(), privateData: [UInt8] = []
    ) async throws(ConnectionError) -> Connection {
        try await request.accept(pair, parameters: parameters, privateData: privateData, timeout: .seconds(20))
    }

    func receive(_ range: Range<Int>, count: Int = 1) throws {
        for _ in 0..<count { try pair.postReceive(try memory.slice(range)) }
    }

    /// The next completion, which must be a good one.
    @discardableResult
    func completion() throws -> WorkCompletion {
        let completion = try completions.poll(timeout: .seconds(20))
        try completion.check()
        return completion
    }

    /// Takes what completed, whatever it is.
    func drain() {
        while let completion = try? completions.poll() { #expect(completion.status == .flushed) }
    }

    /// The way back to who sent a datagram. On RoCE v2 over IPv4 the header is the last 20 of the 40 bytes before the
    /// data (IBTA annex 17), and the source address is at 12 in it.
    func destination(of completion: WorkCompletion, number: UInt32) throws -> DatagramDestination {
        let octets = try memory.copyBytes(32..<36)
        let local = try context.address()
        let route = AddressVector.GlobalRoute(
            gid: GID(ipv4: octets[0], octets[1], octets[2], octets[3]), sourceIndex: local.gidIndex)
        // The key of all datagram services of rdma_cm (RDMA_UDP_QKEY).
        return DatagramDestination(
            handle: try domain.makeAddressHandle(AddressVector(port: local.port, route: route)),
            queuePairNumber: number, queueKey: 0x0123_4567)
    }

    func acceptDatagrams(_ request: ConnectionRequest, privateData: [UInt8] = []) throws {
        try request.acceptDatagrams(pair, privateData: privateData)
    }

    func join(_ connector: Connector) async throws(ConnectionError) -> MulticastMembership {
        try await connector.join(pair, timeout: .seconds(20))
    }

    /// Text at some place of the memory, up to its zero byte.
    func text(_ range: Range<Int>) throws -> String {
        String(decoding: try memory.copyBytes(range).prefix { $0 != 0 }, as: UTF8.self)
    }

    func write(_ bytes: [UInt8], at offset: Int = 0) throws {
        try memory.copyBytes(from: bytes.span.bytes, at: offset)
    }
}

/// Runs what uses rdma_cm in a process of its own: librdmacm keeps devices open for as long as its process lives, and
/// a device that is open cannot go.
enum ConnectionBench {
    /// The objects that this process has in the kernel, but for the open device.
    static func leftovers() async throws -> String {
        let own = "pid \(getpid()) "
        let all = try await Bench.shell(
            "for kind in qp cq pd mr cm_id srq; do rdma resource show $kind; done")
        return all.split(separator: "\n").filter { $0.contains(own) }.joined(separator: "\n")
    }

    /// Runs `body`, after which nothing may be left.
    static func run(_ body: () async throws -> Void) async throws {
        // Nobody reads what a process of a test says when it crashes; the guest's console is in the log.
        dup2(open("/dev/console", O_WRONLY), STDERR_FILENO)
        do { try await body() } catch { Issue.record("\(error)") }
        #expect(try await leftovers() == "")
    }
}

/// The error of a connection that `body` throws.
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
    /// Whether it begins with those bytes, and has only zeroes after them, as private data arrives.
    func isPadded(_ bytes: [UInt8]) -> Bool {
        starts(with: bytes) && dropFirst(bytes.count).allSatisfy { $0 == 0 }
    }
}
