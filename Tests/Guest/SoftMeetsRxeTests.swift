import Testing
import ToolSupport

/// A run of `verbs ping`.
struct Example: CustomTestStringConvertible, Sendable {
    var transport: String
    var operation: String
    var size: Int
    var testDescription: String { "\(transport) \(operation) \(size)" }

    /// Every operation of every service, with messages of no, one and several packets.
    static let all: [Example] = [
        Example(transport: "rc", operation: "send", size: 10_001),
        Example(transport: "rc", operation: "send-imm", size: 0),
        Example(transport: "rc", operation: "write", size: 5000),
        Example(transport: "rc", operation: "write-imm", size: 1024),
        Example(transport: "rc", operation: "read", size: 10_001),
        Example(transport: "rc", operation: "fetch-add", size: 8),
        Example(transport: "rc", operation: "compare-swap", size: 8),
        Example(transport: "uc", operation: "send", size: 3001),
        Example(transport: "uc", operation: "send-imm", size: 1),
        Example(transport: "uc", operation: "write", size: 3001),
        Example(transport: "uc", operation: "write-imm", size: 64),
        Example(transport: "ud", operation: "send", size: 1024),
        Example(transport: "ud", operation: "send-imm", size: 7),
    ]

    func arguments(_ family: String, count: Int) -> [String] {
        [
            "--transport", transport, "--operation", operation, "--size", "\(size)", "--\(family)", "--count",
            "\(count)",
            "--warm-up", "2", "--verify", "--json",
        ]
    }
}

/// Which side of a run the kernel's device has.
enum Role: String, CaseIterable, Sendable {
    case client, server
}

extension Guest {
    @Suite("The software device and the kernel's rxe")
    struct SoftMeetsRxeTests {
        private let soft = ["RDMA_SOFT_INTERFACES": "eth0"]

        /// Runs every example between the two, and looks at what came of it.
        private func exchange(
            _ examples: [Example], on bench: Bench, rxe: Role, family: String, count: Int = 10
        ) async throws {
            let (server, client) = rxe == .server ? (nil, bench.other) : (bench.other, nil)
            let (serverDevice, clientDevice) = rxe == .server ? ("rxe0", "soft_eth0") : ("soft_eth0", "rxe0")
            let address = rxe == .server ? "10.9.0.1" : "10.9.0.2"
            for example in examples {
                let outcome = try await Tool.run(
                    "ping", "--listen", "--port", "0", "--device", serverDevice, on: server,
                    environment: server == nil ? [:] : soft
                ) { running in
                    let port = try await running.port()
                    let outcome = try await Tool.run(
                        ["ping", address, "--port", port, "--device", clientDevice]
                            + example.arguments(family, count: count),
                        on: client, environment: client == nil ? [:] : soft)
                    #expect(outcome.status == 0, "\(example): \(outcome.errors)")
                    guard outcome.status == 0, let side = try outcome.document()["client"] as? [String: Any] else {
                        return
                    }
                    let lost = side["lost"] as? Int ?? -1
                    #expect(lost == 0 || example.transport != "rc", "\(example)")
                    #expect(side["corrupted"] as? Int == 0 && lost < count, "\(example)")
                    #expect(side["verified"] as? Int == count + 2 - lost, "\(example)")
                }
                #expect(outcome.status == 0, "\(example): \(outcome.errors)")
            }
        }

        @Test(
            "every operation moves its data, over IPv4 and IPv6, in both roles", arguments: Role.allCases,
            ["ipv4", "ipv6"])
        func operations(rxe: Role, family: String) async throws {
            try await Bench.run { try await exchange(Example.all, on: $0, rxe: rxe, family: family) }
        }

        @Test("loss, reordering and duplicates cost time and nothing else on RC", arguments: Role.allCases)
        func badNetwork(rxe: Role) async throws {
            try await Bench.run { bench in
                let fault = "root netem delay 1ms reorder 25% loss 1% duplicate 1%"
                try await Bench.shell("tc qdisc add dev veth0 \(fault)")
                try await bench.other.shell("tc qdisc add dev eth0 \(fault)")
                let examples = ["send", "write", "read", "write-imm"].map {
                    Example(transport: "rc", operation: $0, size: 20_000)
                }
                try await exchange(
                    examples + [Example(transport: "rc", operation: "fetch-add", size: 8)], on: bench, rxe: rxe,
                    family: "ipv4", count: 30)
            }
        }

        @Test(
            "every path MTU from 256 to 4096",
            arguments: [(576, 256), (700, 512), (1500, 1024), (2200, 2048), (4200, 4096)])
        func mtu(ethernet: Int, path: Int) async throws {
            try await Bench.run(mtu: ethernet) { bench in
                let outcome = try await Tool.run("info", "soft_eth0", on: bench.other, environment: soft)
                #expect(outcome.output.contains("\(path)"), "\(outcome.output)")
                for rxe in Role.allCases {
                    try await exchange(
                        [Example(transport: "rc", operation: "send", size: 3 * path + 1)], on: bench, rxe: rxe,
                        family: "ipv4")
                }
            }
        }
    }
}
