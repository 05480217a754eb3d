// One end of a connection in a separate process, for tests that need two processes.
//
//     soft-peer server|client [type=rc|uc|ud] [gid=N] [count=N] [size=N] [interface=NAME] [timeout=N]
//     soft-peer interface [interface=NAME]
//
// The first form prints its address as one line of JSON, and reads the peer's address from standard input. The server
// echoes every message, until it receives one of a single byte; to one of two bytes, it answers with the sum of the upper
// half of its memory; after one of three bytes, it changes the access flags of its memory to the first byte of it, and answers with
// the R_Key. The client sends messages and compares the echoes,
// executes the one-sided operations that the service type supports, prints its result as one line of JSON, and stops
// the server.
//
// The second form opens the device and executes commands about its port: InterfaceView.swift.

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

func printLine(_ value: some Encodable) throws {
    var line = try JSONEncoder().encode(value)
    line.append(10)
    FileHandle.standardOutput.write(line)
}

func readValue<Value: Decodable>(_ type: Value.Type) throws -> Value {
    guard let line = readLine() else { throw Failure("end of standard input") }
    return try JSONDecoder().decode(type, from: Data(line.utf8))
}

/// One end of the connection.
final class ConnectionEnd {
    let settings: Settings
    let endpoint: Endpoint
    let peer: Address
    private var handle: UnsafeMutablePointer<ibv_ah>?

    /// The length of the GRH area: a UD message is received after 40 bytes.
    var header: Int { settings.options.type == IBV_QPT_UD ? 40 : 0 }
    static let receiveAt = 0
    static let sendAt = 1 << 18

    init(_ settings: Settings) throws {
        self.settings = settings
        endpoint = try Endpoint(OpenDevice(interface: settings.interface), settings.options)
        try printLine(endpoint.address)
        peer = try readValue(Address.self)
        try endpoint.connect(to: peer)
        try postReceive()
        // Both ends are connected before one sends.
        try printLine("ready")
        _ = try readValue(String.self)
        if settings.options.type == IBV_QPT_UD {
            var attr = endpoint.ahAttr(to: peer)
            handle = try created(endpoint.device.table.create_ah(endpoint.domain, &attr))
        }
    }

    deinit { if let handle { _ = endpoint.device.table.destroy_ah(handle) } }

    func postReceive() throws {
        try endpoint.postReceive([endpoint.sge(Self.receiveAt, header + max(settings.size, 64))])
    }

    func send(_ length: Int) throws {
        try endpoint.post(IBV_WR_SEND, [endpoint.sge(Self.sendAt, length)]) { request in
            if let handle { request.setDestination(peer, handle) }
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
            // The completion of a receive, or of the previous send.
            let received = try expect(1)[0]
            guard received.opcode.rawValue & IBV_WC_RECV.rawValue != 0 else { continue }
            let length = Int(received.byte_len) - header
            if length == 1 { return }
            if length == 2 {
                endpoint.memory.storeBytes(of: endpoint.upperHalfSum, toByteOffset: Self.sendAt, as: UInt64.self)
                try postReceive()
                try send(8)
                continue
            }
            if length == 3 {
                let access = endpoint.memory.load(fromByteOffset: Self.receiveAt + header, as: UInt8.self)
                let error = endpoint.device.table.rereg_mr(
                    endpoint.region, Int32(IBV_REREG_MR_CHANGE_ACCESS.rawValue), nil, nil, 0, Int32(access))
                guard error == 0 else { throw Failure("rereg_mr returned \(error)") }
                endpoint.memory.storeBytes(of: endpoint.region.pointee.rkey, toByteOffset: Self.sendAt, as: UInt32.self)
                try postReceive()
                try send(4)
                continue
            }
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
            else { throw Failure("round \(round): the echo differs") }
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
        let remote: UInt64 = 1 << 19
        let local = 1 << 19
        for length in [0, 1, 4096, 200_000] {
            endpoint.fill(Self.sendAt, length, seed: 99)
            try oneSided(IBV_WR_RDMA_WRITE, endpoint.sge(Self.sendAt, length), peer.memory + remote)
            memset(endpoint.memory + local, 0, length)
            try oneSided(IBV_WR_RDMA_READ, endpoint.sge(local, length), peer.memory + remote)
            guard memcmp(endpoint.memory + Self.sendAt, endpoint.memory + local, length) == 0 else {
                throw Failure("READ returned other data than WRITE had sent")
            }
        }
        endpoint.memory.storeBytes(of: 40, toByteOffset: Self.sendAt, as: UInt64.self)
        try oneSided(IBV_WR_RDMA_WRITE, endpoint.sge(Self.sendAt, 8), peer.memory + remote)
        try atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 0, returns: 40)
        try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 7, returns: 42)
        try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 9, returns: 7)
    }

    private func oneSided(_ opcode: ibv_wr_opcode, _ sge: ibv_sge, _ address: UInt64) throws {
        try endpoint.post(opcode, [sge]) { request in
            request.wr.rdma.remote_addr = address
            request.wr.rdma.rkey = peer.key
        }
        _ = try expect(1)
    }

    private func atomic(_ opcode: ibv_wr_opcode, _ compareAdd: UInt64, _ swap: UInt64, returns value: UInt64) throws {
        try endpoint.post(opcode, [endpoint.sge(Self.sendAt, 8)]) { request in
            request.wr.atomic.remote_addr = peer.memory + (1 << 19)
            request.wr.atomic.rkey = peer.key
            request.wr.atomic.compare_add = compareAdd
            request.wr.atomic.swap = swap
        }
        _ = try expect(1)
        let returned = endpoint.memory.load(fromByteOffset: Self.sendAt, as: UInt64.self)
        guard returned == value else { throw Failure("atomic returned \(returned), not \(value)") }
    }
}

func clock_gettime_nsec() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

do {
    let settings = try Settings(Array(CommandLine.arguments.dropFirst()))
    if CommandLine.arguments.dropFirst().first == "interface" {
        try InterfaceView(settings.interface).run()
        exit(0)
    }
    let end = try ConnectionEnd(settings)
    if settings.isServer {
        try end.serve()
    } else {
        try printLine(end.run())
    }
} catch {
    FileHandle.standardError.write(Data("soft-peer: \(error)\n".utf8))
    exit(1)
}
