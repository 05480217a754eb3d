// One side of a connection, as a process of its own: for the tests that need two.
//
//     soft-peer server|client [type=rc|uc|ud] [gid=N] [count=N] [size=N] [interface=NAME] [timeout=N]
//
// Prints its address as one line of JSON, and reads the other side's from standard input. The server sends back every
// message that it gets, until one of a single byte comes. The client sends messages and compares what comes back,
// carries out the one-sided operations that the service type has, prints its result as one line of JSON, and ends the
// server.

import CIBVerbs
import CProviderABI
import Foundation
import SoftTestSupport

struct Settings {
    var isServer = false
    var options = Endpoint.Options()
    var count = 100
    var size = 64
    var interface = "lo"

    init(_ arguments: [String]) throws {
        isServer = arguments.first == "server"
        for argument in arguments.dropFirst() {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw Failure("\(argument): not NAME=VALUE") }
            switch parts[0] {
            case "type":
                options.type = parts[1] == "ud" ? IBV_QPT_UD : parts[1] == "uc" ? IBV_QPT_UC : IBV_QPT_RC
            case "gid": options.gidIndex = UInt8(parts[1]) ?? 0
            case "count": count = Int(parts[1]) ?? 0
            case "size": size = Int(parts[1]) ?? 0
            case "interface": interface = parts[1]
            case "timeout": options.timeout = UInt8(parts[1]) ?? 14
            default: throw Failure("\(parts[0]): unknown setting")
            }
        }
    }
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct Result: Codable {
    var messages: Int
    /// Round trips in nanoseconds.
    var minimum: UInt64
    var median: UInt64
}

func say(_ value: some Encodable) throws {
    var line = try JSONEncoder().encode(value)
    line.append(10)
    FileHandle.standardOutput.write(line)
}

func hear<Value: Decodable>(_ type: Value.Type) throws -> Value {
    guard let line = readLine() else { throw Failure("the other side is gone") }
    return try JSONDecoder().decode(type, from: Data(line.utf8))
}

/// One connected side.
final class Side {
    let settings: Settings
    let endpoint: Endpoint
    let peer: Address
    private var handle: UnsafeMutablePointer<ibv_ah>?

    /// Datagrams are received behind 40 bytes of header.
    var header: Int { settings.options.type == IBV_QPT_UD ? 40 : 0 }
    static let receiveAt = 0
    static let sendAt = 1 << 18

    init(_ settings: Settings) throws {
        self.settings = settings
        endpoint = try Endpoint(OpenDevice(interface: settings.interface), settings.options)
        try say(endpoint.address)
        peer = try hear(Address.self)
        try endpoint.connect(to: peer)
        try postReceive()
        // Both sides are ready before one sends.
        try say("ready")
        _ = try hear(String.self)
        if settings.options.type == IBV_QPT_UD {
            var attr = endpoint.route(to: peer)
            handle = try made(endpoint.device.table.create_ah(endpoint.domain, &attr))
        }
    }

    deinit { if let handle { _ = endpoint.device.table.destroy_ah(handle) } }

    func postReceive() throws {
        try endpoint.postReceive([endpoint.piece(Self.receiveAt, header + max(settings.size, 64))])
    }

    func send(_ length: Int) throws {
        try endpoint.post(IBV_WR_SEND, [endpoint.piece(Self.sendAt, length)]) { request in
            guard let handle else { return }
            request.wr.ud.ah = handle
            request.wr.ud.remote_qpn = peer.queuePair
            request.wr.ud.remote_qkey = peer.queueKey
        }
    }

    func expect(_ count: Int) throws -> [ibv_wc] {
        let completions = try endpoint.completions(count)
        for completion in completions where completion.status != IBV_WC_SUCCESS {
            throw Failure("completion with status \(completion.status.rawValue)")
        }
        return completions
    }

    // MARK: The server

    func serve() throws {
        while true {
            // A receive, and the completion of what was sent before.
            let received = try expect(1)[0]
            guard received.opcode.rawValue & IBV_WC_RECV.rawValue != 0 else { continue }
            let length = Int(received.byte_len) - header
            if length == 1 { return }
            (endpoint.memory + Self.sendAt).copyMemory(
                from: endpoint.memory + Self.receiveAt + header, byteCount: length)
            try postReceive()
            try send(length)
        }
    }

    // MARK: The client

    func run() throws -> Result {
        var times: [UInt64] = []
        times.reserveCapacity(settings.count)
        for round in 0..<settings.count {
            endpoint.fill(Self.sendAt, settings.size, seed: UInt8(truncatingIfNeeded: round))
            let start = clock_gettime_nsec()
            try send(settings.size)
            _ = try expect(2)
            times.append(clock_gettime_nsec() - start)
            guard
                memcmp(
                    endpoint.memory + Self.sendAt, endpoint.memory + Self.receiveAt + header, settings.size) == 0
            else { throw Failure("round \(round): other data came back") }
            try postReceive()
        }
        if settings.options.type == IBV_QPT_RC { try useMemory() }
        try send(1)
        _ = try expect(1)
        times.sort()
        return Result(
            messages: settings.count, minimum: times.first ?? 0, median: times.isEmpty ? 0 : times[times.count / 2])
    }

    /// WRITE, READ and atomics on the server's memory.
    private func useMemory() throws {
        let far: UInt64 = 1 << 19
        let near = 1 << 19
        for length in [0, 1, 4096, 200_000] {
            endpoint.fill(Self.sendAt, length, seed: 99)
            try oneSided(IBV_WR_RDMA_WRITE, endpoint.piece(Self.sendAt, length), peer.memory + far)
            memset(endpoint.memory + near, 0, length)
            try oneSided(IBV_WR_RDMA_READ, endpoint.piece(near, length), peer.memory + far)
            guard memcmp(endpoint.memory + Self.sendAt, endpoint.memory + near, length) == 0 else {
                throw Failure("READ brought other data than WRITE took there")
            }
        }
        endpoint.memory.storeBytes(of: 40, toByteOffset: Self.sendAt, as: UInt64.self)
        try oneSided(IBV_WR_RDMA_WRITE, endpoint.piece(Self.sendAt, 8), peer.memory + far)
        try atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 0, brings: 40)
        try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 7, brings: 42)
        try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 9, brings: 7)
    }

    private func oneSided(_ opcode: ibv_wr_opcode, _ piece: ibv_sge, _ address: UInt64) throws {
        try endpoint.post(opcode, [piece]) { request in
            request.wr.rdma.remote_addr = address
            request.wr.rdma.rkey = peer.key
        }
        _ = try expect(1)
    }

    private func atomic(_ opcode: ibv_wr_opcode, _ compareAdd: UInt64, _ swap: UInt64, brings value: UInt64) throws {
        try endpoint.post(opcode, [endpoint.piece(Self.sendAt, 8)]) { request in
            request.wr.atomic.remote_addr = peer.memory + (1 << 19)
            request.wr.atomic.rkey = peer.key
            request.wr.atomic.compare_add = compareAdd
            request.wr.atomic.swap = swap
        }
        _ = try expect(1)
        let brought = endpoint.memory.load(fromByteOffset: Self.sendAt, as: UInt64.self)
        guard brought == value else { throw Failure("atomic brought \(brought), not \(value)") }
    }
}

func clock_gettime_nsec() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

do {
    let settings = try Settings(Array(CommandLine.arguments.dropFirst()))
    let side = try Side(settings)
    if settings.isServer {
        try side.serve()
    } else {
        try say(side.run())
    }
} catch {
    FileHandle.standardError.write(Data("soft-peer: \(error)\n".utf8))
    exit(1)
}
