import Foundation
import Testing

/// Debian's programs of librdmacm, with Debian's librdmacm and provider libraries, over rdma_cm of the simulated kernel.
@Suite("Simulator: Debian's rdma_cm programs", .enabled(if: Peer.canPreload), .serialized)
final class ManagerProgramTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/sim-rdmacm.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// RoCE, InfiniBand and iWARP.
    static let devices = ["mlx5 roce", "mlx5", "cxgb4 t4", "cxgb4 t5", "cxgb4 t6", "cxgb4 t5 write"]

    /// A server and a client with the port at which the server listens.
    struct Pair: CustomTestStringConvertible, Sendable {
        var server: [String]
        var client: [String]
        var port = 7471
        var space = "106"
        var testDescription: String { client.joined(separator: " ") }
    }

    static let pairs = [
        Pair(
            server: ["rping", "-s", "-V", "-C", "20", "-S", "3000"],
            client: ["rping", "-c", "-V", "-C", "20", "-S", "3000", "-a", "127.0.0.1"], port: 7174),
        Pair(
            server: ["ucmatose", "-c", "5", "-C", "10", "-S", "2000"],
            client: ["ucmatose", "-s", "127.0.0.1", "-c", "5", "-C", "10", "-S", "2000"]),
        Pair(server: ["rdma_server"], client: ["rdma_client", "-s", "127.0.0.1"]),
        Pair(server: ["rdma_xserver"], client: ["rdma_xclient", "-s", "127.0.0.1"]),
    ]

    /// A program that runs.
    private final class Running {
        let process = Process()
        private let pipe = Pipe()

        init(_ command: [String], device: String) throws {
            process.executableURL = URL(fileURLWithPath: "/usr/bin/" + command[0])
            process.arguments = Array(command.dropFirst())
            process.environment = ProcessInfo.processInfo.environment.merging([
                "LD_PRELOAD": Peer.library, "UVERBS_SIM": device,
            ]) { $1 }
            process.standardOutput = pipe
            process.standardError = pipe
            process.standardInput = FileHandle.nullDevice
            try process.run()
        }

        /// Reads output until it contains a text. Returns false when the program ends before.
        func output(until text: String) -> Bool {
            var output = ""
            while !output.contains(text) {
                let more = pipe.fileHandleForReading.availableData
                if more.isEmpty { return false }
                output += String(decoding: more, as: UTF8.self)
            }
            return true
        }

        /// The exit status and the remaining output, when it has ended.
        func end() -> (status: Int32, output: String) {
            let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            return (
                process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus, output
            )
        }
    }

    private func start(_ command: [String], _ device: String) throws -> Running {
        try Running(command, device: "\(device) free wire=\(directory)")
    }

    /// Waits until a process on the wire listens at a port of all addresses.
    private func waitForPort(_ pair: Pair) throws {
        let name = "\(directory)/port-\(pair.space)-\(pair.port)"
        for _ in 0..<3000 {
            let owner = try? FileManager.default.destinationOfSymbolicLink(atPath: name)
            if owner?.hasSuffix(" listening") == true { return }
            usleep(10_000)
        }
        Issue.record("no program listens at \(name)")
    }

    @Test("server and client in two processes exchange their messages", arguments: devices, pairs)
    func pairs(device: String, pair: Pair) throws {
        let server = try start(pair.server, device)
        try waitForPort(pair)
        let client = try start(pair.client, device).end()
        let served = server.end()
        #expect(client.status == 0, "\(client.output)")
        #expect(served.status == 0, "\(served.output)")
    }

    @Test("a datagram service is found and used", arguments: ["mlx5 roce", "mlx5"])
    func datagrams(device: String) throws {
        let pair = Pair(server: ["udaddy"], client: ["udaddy", "-s", "127.0.0.1"], port: 7174, space: "111")
        try pairs(device: device, pair: pair)
    }

    @Test("by the address of the server's port", arguments: ["mlx5 roce", "mlx5", "cxgb4 t5"])
    func address(device: String) throws {
        let pair = Pair(
            server: ["rping", "-s", "-V", "-C", "5"], client: ["rping", "-c", "-V", "-C", "5", "-a", "198.18.0.1"],
            port: 7174)
        try pairs(device: device, pair: pair)
    }

    @Test(
        "without a server the connection is rejected: by the reason 8, and by iWARP as refused",
        arguments: [("mlx5 roce", "8"), ("mlx5", "8"), ("cxgb4 t5", "-111")])
    func noServer(device: String, reason: String) throws {
        let outcome = try start(["rping", "-c", "-a", "127.0.0.1"], device).end()
        #expect(outcome.status != 0)
        #expect(outcome.output.contains("RDMA_CM_EVENT_REJECTED, error \(reason)"), "\(outcome.output)")
    }

    @Test(
        "a killed server: its client ends, by the DISCONNECTED event or by a failed completion",
        arguments: ["mlx5 roce", "mlx5", "cxgb4 t5"])
    func killed(device: String) throws {
        let pair = Pair(server: ["rping", "-s"], client: ["rping", "-c", "-a", "127.0.0.1"], port: 7174)
        let server = try start(pair.server, device)
        try waitForPort(pair)
        // A terminal, so that the client's output comes line by line.
        let command = pair.client.joined(separator: " ") + " -v"
        let client = try start(["script", "-qfec", command, "/dev/null"], device)
        #expect(client.output(until: "ping data: rdma-ping-1"))
        kill(server.process.processIdentifier, SIGKILL)
        let outcome = client.end()
        let isDisconnected = outcome.output.contains("client DISCONNECT EVENT")
        // On RoCE and InfiniBand the retries of a message can end before the event comes.
        #expect(isDisconnected || outcome.output.contains("cq completion failed status 12"), "\(outcome.output)")
        _ = server.end()
    }
}
