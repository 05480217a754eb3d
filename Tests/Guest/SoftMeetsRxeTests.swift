import Glibc
import RoCEWire
import Testing
import ToolSupport

/// The role of the kernel's device in a run.
enum Role: String, CaseIterable, Sendable {
    case client, server
}

extension Guest {
    @Suite("The software device and the kernel's rxe")
    struct SoftMeetsRxeTests {
        private let soft = ["RDMA_SOFT_INTERFACES": "eth0"]

        /// Runs `verbs ping` between soft and rxe. Returns the outcomes of server and client.
        private func ping(
            _ arguments: [String], on bench: Bench, rxe: Role,
            meanwhile: (_ server: Tool.Running, _ client: Tool.Running) async throws -> Void = { _, _ in }
        ) async throws -> (server: Tool.Outcome, client: Tool.Outcome) {
            let kernels = (device: "rxe0", host: nil as NetworkNamespace?, environment: [:] as [String: String])
            let ours = (device: "soft_eth0", host: bench.other as NetworkNamespace?, environment: soft)
            let (server, client) = rxe == .server ? (kernels, ours) : (ours, kernels)
            let address = rxe == .server ? "10.9.0.1" : "10.9.0.2"
            var pinged: Tool.Outcome?
            let listened = try await Tool.run(
                "ping", "--listen", "--port", "0", "--device", server.device, on: server.host,
                environment: server.environment
            ) { running in
                pinged = try await Tool.run(
                    ["ping", address, "--port", try await running.port(), "--device", client.device] + arguments,
                    on: client.host, environment: client.environment
                ) { try await meanwhile(running, $0) }
            }
            return (listened, try #require(pinged))
        }

        /// Transfers messages between soft and rxe, and checks the report of every operation.
        private func exchange(_ arguments: [String], on bench: Bench, rxe: Role, count: Int) async throws {
            let (server, client) = try await ping(["--all"] + arguments + Ping.verified(count), on: bench, rxe: rxe)
            // Status 7: received data differs from sent data; the report has the details.
            #expect(client.status == 0, "\(client.errors)\(client.status == 7 ? client.output : "")")
            if client.status == 0 { try Ping.check(client, sent: count) }
            #expect(server.status == 0, "\(server.errors)")
        }

        @Test("every operation over IPv4 and IPv6, as client and as server; Wireshark and the ICRC check accept all")
        func operations() async throws {
            try await Bench.run(alone: true) { bench in
                // The sender's kernel segments GSO batches before they leave it, as an adapter does.
                try await bench.other.shell("ip link set eth0 gso_max_segs 1")
                let frames = try await PacketCapture.during {
                    for rxe in Role.allCases {
                        for family in ["ipv4", "ipv6"] {
                            try await exchange(["--\(family)", "--size", "5001"], on: bench, rxe: rxe, count: 10)
                        }
                        // Messages of one packet.
                        let family = rxe == .client ? "--ipv4" : "--ipv6"
                        try await exchange([family, "--size", "64"], on: bench, rxe: rxe, count: 4)
                    }
                }
                try PacketCapture.check(frames)
                // Both hosts have sent every opcode of multi-packet messages, over IPv4 and over IPv6.
                let kinds: Set<Opcode> = [
                    .rcSendFirst, .rcSendMiddle, .rcSendLast, .rcSendLastWithImmediate, .rcWriteFirst, .rcWriteMiddle,
                    .rcWriteLast, .rcWriteLastWithImmediate, .rcReadRequest, .rcReadResponseFirst,
                    .rcReadResponseMiddle, .rcReadResponseLast, .rcAcknowledge, .rcAtomicAcknowledge, .rcCompareAndSwap,
                    .rcFetchAndAdd, .ucSendFirst, .ucSendMiddle, .ucSendLast, .ucSendLastWithImmediate, .ucWriteFirst,
                    .ucWriteMiddle, .ucWriteLast, .ucWriteLastWithImmediate, .udSendOnly, .udSendOnlyWithImmediate,
                ]
                for isIPv4 in [true, false] {
                    // The last byte of the source address: rxe's is 1.
                    for sender in [1, 2] as [UInt8] {
                        let sent = frames.filter { $0.isIPv4 == isIPv4 && $0.bytes[isIPv4 ? 15 : 23] == sender }
                        let missing = kinds.subtracting(sent.map(\.opcode))
                        #expect(missing.isEmpty, "IPv4 \(isIPv4), host \(sender): \(missing)")
                    }
                }
                let only: Set<Opcode> = [
                    .rcSendOnly, .rcSendOnlyWithImmediate, .rcWriteOnly, .rcWriteOnlyWithImmediate,
                    .rcReadResponseOnly, .ucSendOnly, .ucSendOnlyWithImmediate, .ucWriteOnly,
                    .ucWriteOnlyWithImmediate,
                ]
                for sender in [1, 2] as [UInt8] {
                    let sent = frames.filter { $0.bytes[$0.isIPv4 ? 15 : 23] == sender }
                    #expect(only.subtracting(sent.map(\.opcode)).isEmpty, "host \(sender)")
                }
                // soft has sent GSO batches over IPv4 and IPv6: their packets have UDP checksums, and over IPv4
                // identifications that begin at 0.
                let batches = frames.filter { $0.udp.checksum != 0 }
                let identifications = Set(
                    batches.compactMap { frame -> UInt16? in
                        guard case .v4(let header) = frame.ip else { return nil }
                        return header.identification
                    })
                #expect(identifications.isSuperset(of: [0, 1, 2, 3]), "\(identifications)")
                #expect(batches.contains { !$0.isIPv4 && $0.bytes[23] == 2 })
            }
        }

        @Test(
            "soft's connection manager and the kernel's connect them, as client and as server", arguments: Role.allCases
        )
        func connectionManager(rxe: Role) async throws {
            try await Bench.run(alone: true) { bench in
                // The sender's kernel segments GSO batches before they leave it, as an adapter does.
                try await bench.other.shell("ip link set eth0 gso_max_segs 1")
                let frames = try await PacketCapture.during {
                    try await exchange(["--rdma-cm", "--size", "5001"], on: bench, rxe: rxe, count: 4)
                }
                try PacketCapture.check(frames)
                // REQ, REP, RTU, DREQ and DREP, by the second byte of the attribute in the MAD.
                let messages = frames.filter { $0.headers.bth.destinationQPN == 1 }.map { $0.payload[17] }
                #expect(Set(messages).isSuperset(of: [0x10, 0x13, 0x14, 0x15, 0x16]), "\(messages)")
            }
        }

        @Test("loss, reordering and duplicates lose messages on UC and UD only, and corrupt none")
        func badNetwork() async throws {
            try await Bench.run(alone: true) { bench in
                let fault = "root netem delay 1ms reorder 25% loss 1% duplicate 1%"
                try await Bench.shell("tc qdisc add dev veth0 \(fault)")
                try await bench.other.shell("tc qdisc add dev eth0 \(fault)")
                for rxe in Role.allCases {
                    // Multi-packet messages on RC only, because on UC one lost packet loses its whole message.
                    let (many, one) = rxe == .client ? ("--ipv4", "--ipv6") : ("--ipv6", "--ipv4")
                    try await exchange(["--transport", "rc", "--size", "20000", many], on: bench, rxe: rxe, count: 8)
                    try await exchange(["--size", "1000", one], on: bench, rxe: rxe, count: 6)
                }
            }
        }

        @Test("killing the server gives the client an error, and leaves no kernel objects", arguments: Role.allCases)
        func killed(rxe: Role) async throws {
            try await Bench.run { bench in
                let (server, client) = try await ping(["--count", "0"], on: bench, rxe: rxe) { server, client in
                    _ = try await client.hasSaid("until Ctrl-C")
                    server.send(signal: SIGKILL)
                }
                #expect(client.status == 6, "\(client.errors)")
                #expect(server.status == -SIGKILL)
            }
        }

        @Test("every path MTU from 256 to 4096: RC at each, all services as client and as server at 256 and 4096")
        func mtu() async throws {
            try await Bench.run(mtu: 4200) { bench in
                for (ethernet, path) in [(4200, 4096), (2200, 2048), (1500, 1024), (700, 512), (576, 256)] {
                    try await Bench.shell("ip link set veth0 mtu \(ethernet)")
                    try await bench.other.shell("ip link set eth0 mtu \(ethernet)")
                    let outcome = try await Tool.run("info", "soft_eth0", on: bench.other, environment: soft)
                    #expect(outcome.output.contains("\(path) of 4096 bytes"), "\(outcome.output)")
                    let size = ["--size", "\(3 * path + 1)"]
                    guard path == 256 || path == 4096 else {
                        try await exchange(["--transport", "rc", "--ipv4"] + size, on: bench, rxe: .client, count: 4)
                        continue
                    }
                    for rxe in Role.allCases {
                        // RFC 8200: IPv6 needs 1280 bytes.
                        let family = rxe == .client && ethernet >= 1280 ? "--ipv6" : "--ipv4"
                        try await exchange([family] + size, on: bench, rxe: rxe, count: 4)
                    }
                }
            }
        }
    }
}
