import Foundation
import Glibc
import RoCEWire
import Testing
import ToolSupport
import Verbs

extension Guest {
    /// ATOMIC WRITE and FLUSH (IBTA volume 1 release 1.5, annex A19). The kernel's rxe has the one from Linux 6.2 on, the
    /// other from 6.3 on: `scripts/guest --kernel bookworm-backports`. With an older kernel the tests print that, and check
    /// that the native provider refuses both.
    @Suite("ATOMIC WRITE and FLUSH over the kernel's rxe")
    struct PlacementTests {
        private static let all: AccessFlags = [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic, .flushGlobal]

        /// Whether the kernel's rxe has both.
        private static func areSupported(on context: Context) throws -> Bool {
            let capabilities = try context.attributes().capabilities
            if capabilities.isSuperset(of: [.atomicWrite, .flushGlobal]) { return true }
            let domain = try context.makeProtectionDomain()
            let completions = try context.makeCompletionQueue(capacity: 4)
            for operation in [QueuePair.ExtendedOperations.atomicWrite, .flush] {
                var options = QueuePair.CreationOptions()
                options.extendedOperations = operation
                let error = #expect(throws: VerbsError.self) {
                    _ = try domain.makeQueuePair(.reliableConnection, completions: completions, options: options)
                }
                #expect(error?.errno == .notSupported)
            }
            print("Not tested: rxe of \(try kernelRelease()) has no ATOMIC WRITE and no FLUSH (\(capabilities))")
            return false
        }

        private static func kernelRelease() throws -> String {
            try String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }

        /// One side of a connection over the native provider.
        private struct Side: ~Copyable {
            let memory: MemoryRegion
            var completions: CompletionQueue
            var pair: QueuePair
            let endpoint: Endpoint

            init(_ context: Context, region: AccessFlags = all) throws {
                let domain = try context.makeProtectionDomain()
                let memory = try domain.makeMemoryRegion(byteCount: 4096, access: region)
                let completions = try context.makeCompletionQueue(capacity: 16)
                var options = QueuePair.CreationOptions()
                options.extendedOperations = [.atomicWrite, .flush]
                let pair = try domain.makeQueuePair(.reliableConnection, completions: completions, options: options)
                let address = try context.addresses().first { $0.gid.isIPv4Mapped }
                endpoint = try pair.endpoint(at: address, memory: memory.remote)
                self.memory = memory
                self.completions = completions
                self.pair = pair
            }

            /// Makes requests, and returns what placement-peer prints for them.
            mutating func make(_ requests: [Request], to remote: RemoteMemory) throws -> [String] {
                try requests.map { request in
                    try pair.postExtended { (requests) throws(VerbsError) in
                        switch request {
                        case .write(let offset, let value):
                            let value: [1 of UInt64] = [value]
                            let target = RemoteMemory(
                                address: remote.address + offset, rkey: remote.rkey, byteCount: 8)
                            try requests.append(.atomicWrite(to: target), inline: value.span.bytes)
                        case .flush(let offset, let length, let placement, let selectivity):
                            let target = RemoteMemory(
                                address: remote.address + offset, rkey: remote.rkey, byteCount: length)
                            try requests.append(.flush(target, placement: placement, selectivity: selectivity))
                        }
                    }
                    let completion = try completions.poll(timeout: .seconds(300))
                    return completion.status == .success ? "\(completion.opcode)" : "\(completion.status)"
                }
            }

            /// The words of the memory that are not 0, as placement-peer prints them.
            func words() throws -> [String] {
                try stride(from: 0, to: 4096, by: 8).compactMap { offset in
                    let value = try memory.loadAcquiring(at: offset)
                    return value == 0 ? nil : "\(offset)=\(value)"
                }
            }
        }

        private enum Request: CustomStringConvertible {
            case write(UInt64, UInt64)
            case flush(UInt64, UInt64, FlushPlacement, FlushSelectivity)

            var description: String {
                switch self {
                case .write(let offset, let value): "write,\(offset),\(value)"
                case .flush(let offset, let length, let placement, let selectivity):
                    "flush,\(offset),\(length),\(placement.rawValue),\(selectivity.rawValue)"
                }
            }
        }

        private struct Case {
            let requests: [Request]
            let completions: [String]
            var words: [String] = []
            /// What the responder's memory region and queue pair allow.
            var region = all
            var pair = all
        }

        /// Requests, how they end, and the words of the responder's memory then.
        private static let cases = [
            Case(
                requests: [
                    .write(64, 0x0102_0304_0506_0708), .flush(64, 8, .globalVisibility, .range), .write(4088, 7),
                    .flush(0, 0, .globalVisibility, .memoryRegion), .write(64, 9),
                ],
                completions: ["ATOMIC_WRITE", "FLUSH", "ATOMIC_WRITE", "FLUSH", "ATOMIC_WRITE"],
                words: ["64=9", "4088=7"]),
            // The end of the range, and the word, are behind the region.
            Case(requests: [.flush(4088, 9, .globalVisibility, .range)], completions: ["REM_ACCESS_ERR"]),
            Case(requests: [.write(4096, 1)], completions: ["REM_ACCESS_ERR"]),
            // The region does not allow it.
            Case(
                requests: [.flush(0, 8, .globalVisibility, .range)], completions: ["REM_ACCESS_ERR"],
                region: all.subtracting(.flushGlobal)),
            // The queue pair does not allow it.
            Case(
                requests: [.write(8, 3), .flush(0, 8, .globalVisibility, .range)],
                completions: ["ATOMIC_WRITE", "REM_INV_REQ_ERR"], words: ["8=3"],
                pair: all.subtracting(.flushGlobal)),
            Case(requests: [.flush(0, 8, .persistence, .range)], completions: ["REM_INV_REQ_ERR"]),
        ]

        @Test("rxe with itself: values, ranges, whole regions, and requests that are not allowed")
        func alone() async throws {
            try await Bench.run { _ in
                let context = try NativeDevice(.rxe).open()
                guard try Self.areSupported(on: context) else { return }
                for expected in Self.cases {
                    var requester = try Side(context)
                    let responder = try Side(context, region: expected.region)
                    try requester.pair.connect(to: responder.endpoint, options: options(Self.all))
                    try responder.pair.connect(to: requester.endpoint, options: options(expected.pair))
                    let completions = try requester.make(expected.requests, to: responder.memory.remote)
                    #expect(completions == expected.completions, "\(expected.requests)")
                    #expect(try responder.words() == expected.words, "\(expected.requests)")
                }
            }
        }

        @Test("rxe and soft on another host answer each other's requests as rxe does", arguments: Role.allCases)
        func withSoft(rxe: Role) async throws {
            try await Bench.run { bench in
                let context = try NativeDevice(.rxe).open()
                guard try Self.areSupported(on: context) else { return }
                for expected in Self.cases { try await check(expected, rxe: rxe, context, bench) }
            }
        }

        /// Two faults of rxe (Linux 6.12) leave no more to test. As the requester it sends again with the address 0
        /// (`req_retry`), which the peer refuses; as the responder it does not know a FLUSH again whose response was lost
        /// (`rxe_prepare_res` does not store its PSN), and drops it.
        @Test("soft's ATOMIC WRITEs to rxe are executed on a network that loses, reorders and duplicates")
        func badNetwork() async throws {
            try await Bench.run(alone: true) { bench in
                let context = try NativeDevice(.rxe).open()
                guard try Self.areSupported(on: context) else { return }
                let fault = "root netem delay 1ms reorder 25% loss 5% duplicate 5%"
                try await Bench.shell("tc qdisc add dev veth0 \(fault)")
                try await bench.other.shell("tc qdisc add dev eth0 \(fault)")
                let offsets = (0..<60 as Range<UInt64>).map { 8 * $0 }
                try await check(
                    Case(
                        requests: offsets.map { .write($0, $0 + 1) },
                        completions: offsets.map { _ in "ATOMIC_WRITE" },
                        words: offsets.map { "\($0)=\($0 + 1)" }),
                    rxe: .server, context, bench)
            }
        }

        /// Makes the requests over a connection of rxe and soft.
        private func check(_ expected: Case, rxe: Role, _ context: Context, _ bench: Bench) async throws {
            var side = try Side(context, region: rxe == .server ? expected.region : Self.all)
            let program = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
            let file = "/dev/shm/placement-peer"
            defer { unlink(file) }
            let (ours, theirs) = rxe == .server ? (expected.pair, Self.all) : (Self.all, expected.pair)
            let command =
                bench.other.entrance + [
                    "env", "RDMA_SOFT_INTERFACES=eth0", program + "/placement-peer", "soft_eth0",
                    "\((rxe == .server ? Self.all : expected.region).rawValue)", "\(theirs.rawValue)",
                    "\(side.endpoint)", file,
                ] + (rxe == .server ? expected.requests.map(\.description) : [])
            async let printed = Bench.shell(command.joined(separator: " "))
            while access(file, F_OK) != 0 { try await Task.sleep(for: .milliseconds(20)) }
            let peer = try #require(Endpoint(try String(contentsOfFile: file, encoding: .utf8)))
            try side.pair.connect(to: peer, options: options(ours))
            let made = rxe == .client ? try side.make(expected.requests, to: try #require(peer.memory)) : nil
            unlink(file)
            let lines = try await printed.split(separator: "\n").map(String.init)
            #expect(made ?? lines == expected.completions, "\(expected.requests)")
            #expect(try (made == nil ? side.words() : lines) == expected.words, "\(expected.requests)")
        }

        private func options(_ access: AccessFlags) -> ConnectionOptions {
            var options = ConnectionOptions()
            options.access = access
            // 4.3 s: rxe must not send again (`badNetwork`) because a processor is slow.
            options.timeout = LocalACKTimeout(rawValue: 20)
            return options
        }

        @Test("verbs ping verifies both between rxe and soft, in both roles, over IPv4 and IPv6")
        func pinged() async throws {
            try await Bench.run(alone: true) { bench in
                let device = try NativeDevice(.rxe)
                do {
                    guard try Self.areSupported(on: try device.open()) else { return }
                }
                // The sender's kernel segments GSO batches before they leave it, as an adapter does.
                try await bench.other.shell("ip link set eth0 gso_max_segs 1")
                let frames = try await PacketCapture.during {
                    for rxe in Role.allCases {
                        for operation in ["atomic-write", "flush"] {
                            for family in ["ipv4", "ipv6"] {
                                try await ping(operation, family, device, bench, rxe: rxe)
                            }
                        }
                    }
                }
                // rxe computes another ICRC for a FLUSH, and soft sends that one, too.
                #expect(frames.allSatisfy { $0.opcode == .rcFlush || $0.hasRightICRC })
                // Both hosts have sent both opcodes. The last byte of the source address: rxe's is 1.
                for sender in [1, 2] as [UInt8] {
                    let sent = Set(frames.filter { $0.isIPv4 && $0.bytes[15] == sender }.map(\.opcode))
                    #expect(sent.isSuperset(of: [.rcAtomicWrite, .rcFlush]), "host \(sender): \(sent)")
                }
            }
        }

        private func ping(
            _ operation: String, _ family: String, _ device: borrowing NativeDevice, _ bench: Bench, rxe: Role
        ) async throws {
            let kernels = ("rxe0", nil as NetworkNamespace?, device.environment(.native))
            let ours = ("soft_eth0", bench.other as NetworkNamespace?, ["RDMA_SOFT_INTERFACES": "eth0"])
            let (server, client) = rxe == .server ? (kernels, ours) : (ours, kernels)
            var pinged: Tool.Outcome?
            let listened = try await Tool.run(
                "ping", "--listen", "--port", "0", "--device", server.0, on: server.1, environment: server.2
            ) { running in
                pinged = try await Tool.run(
                    [
                        "ping", rxe == .server ? "10.9.0.1" : "10.9.0.2", "--port", try await running.port(),
                        "--device", client.0, "--\(family)", "--operation", operation, "--count", "10", "--verify",
                    ], on: client.1, environment: client.2)
            }
            let outcome = try #require(pinged)
            #expect(outcome.status == 0 && listened.status == 0, "\(operation): \(outcome.errors)\(listened.errors)")
        }
    }
}
