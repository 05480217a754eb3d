import Foundation
import Testing
import ToolSupport

/// Two commands that connect by librdmacm. In them, HERE is an address of the host that runs the command, SERVER one of
/// the server's host.
struct ConnectedPrograms: Sendable, CustomTestStringConvertible {
    let server: String
    let client: String
    /// What the client prints when all is well; its exit status says so, too.
    let proof: String
    var isIPv6 = false
    /// Whether the server goes on when its client has ended.
    var isEndless = false
    /// The roles of rxe.
    var roles = Role.allCases

    var testDescription: String { client }

    static var runs: [(ConnectedPrograms, Role)] { all.flatMap { programs in programs.roles.map { (programs, $0) } } }

    /// The programs compare what they receive with what was sent: rping with -V, the rsocket programs with -T v.
    private static let all: [ConnectedPrograms] = [
        .init(
            server: "rping -s -a HERE -p 7471 -v -V -C 10", client: "rping -c -a SERVER -p 7471 -v -V -C 10",
            proof: "ping data: rdma-ping-9"),
        .init(
            server: "rping -s -a HERE -p 7471 -V -C 3 -S 16000",
            client: "rping -c -a SERVER -p 7471 -v -V -C 3 -S 16000",
            proof: "ping data: rdma-ping-2", isIPv6: true),
        .init(
            server: "ucmatose -b HERE -c 5 -C 10 -S 1000", client: "ucmatose -s SERVER -b HERE -c 5 -C 10 -S 1000",
            proof: "return status 0"),
        .init(
            server: "udaddy -b HERE -c 3 -C 10", client: "udaddy -s SERVER -b HERE -c 3 -C 10", proof: "return status 0"
        ),
        .init(server: "rdma_server -s HERE", client: "rdma_client -s SERVER", proof: "rdma_client: end 0"),
        .init(
            server: "rstream -b HERE -S 4096 -C 100 -T v", client: "rstream -s SERVER -S 4096 -C 100 -T v",
            proof: "4k"),
        .init(
            server: "riostream -b HERE -S 4096 -C 100 -T v", client: "riostream -s SERVER -S 4096 -C 100 -T v",
            proof: "4k"),
        .init(
            server: "rcopy",
            client: "sh -c 'rcopy /usr/bin/rping SERVER:/dev/shm/copied && cmp /usr/bin/rping /dev/shm/copied'",
            proof: "bytes in", isEndless: true),
        .init(server: "rdma_xserver -c r", client: "rdma_xclient -s SERVER -c r", proof: "rdma_xclient: end 0"),
    ]
}

extension Guest {
    /// librdmacm is Debian's on both hosts. On rxe's it works with the kernel's rdma_cm, on soft's with that of `verbs run`.
    @Suite("Debian's programs of librdmacm over soft, and the same over rxe")
    struct LibrdmacmProgramsTests {
        /// What puts a program onto a host.
        private struct Host {
            let prefix: String
            let ipv4: String
            let ipv6: String

            static let rxe = Host(prefix: "", ipv4: "10.9.0.1", ipv6: "fd09::1")
            static func soft(_ bench: Bench) -> Host {
                let run = [Tool.path, "run", "--verbose", "--device", "soft_eth0", "--"]
                return Host(
                    prefix: (bench.other.entrance + run).joined(separator: " "), ipv4: "10.9.0.2", ipv6: "fd09::2")
            }

            func start(_ command: String) async throws -> Program { try await Program(command, prefix: prefix) }
        }

        @Test("soft and rxe are each other's client and server", arguments: ConnectedPrograms.runs)
        func connected(_ programs: ConnectedPrograms, rxe: Role) async throws {
            try await Bench.run { bench in
                let (server, client) = rxe == .server ? (Host.rxe, Host.soft(bench)) : (Host.soft(bench), Host.rxe)
                func address(_ host: Host) -> String { programs.isIPv6 ? host.ipv6 : host.ipv4 }
                let serving = try await server.start(programs.server.replacing("HERE", with: address(server)))
                if rxe == .server {
                    try await awaitListener()
                } else {
                    try await serving.awaitOutput("a program listens at port")
                }
                let calling = try await client.start(
                    programs.client.replacing("HERE", with: address(client)).replacing("SERVER", with: address(server)))
                let said = try await calling.end()
                #expect(said.contains(programs.proof), "\(said)")
                if programs.isEndless { try await serving.terminate() } else { try await serving.end() }
                let ours = try await (rxe == .server ? calling : serving).awaitOutput("ended with")
                #expect(ours.contains(Self.served), "\(ours)")
            }
        }

        @Test("mckey sends to a group from soft to rxe, and from rxe to soft", arguments: Role.allCases)
        func multicast(rxe: Role) async throws {
            try await Bench.run { bench in
                // The sender is the client.
                let (receiver, sender) = rxe == .server ? (Host.rxe, Host.soft(bench)) : (Host.soft(bench), Host.rxe)
                let options = "-m 239.77.2.\(rxe == .server ? 1 : 2) -C 10 -S 100"
                let receiving = try await receiver.start("stdbuf -oL mckey -b \(receiver.ipv4) \(options)")
                try await receiving.awaitOutput("receiving")
                let sending = try await sender.start("mckey -b \(sender.ipv4) -s \(options)")
                for program in [sending, receiving] {
                    let said = try await program.end()
                    #expect(said.contains("return status 0"), "\(said)")
                }
                let ours = try await (rxe == .server ? sending : receiving).awaitOutput("ended with")
                #expect(ours.contains(Self.served), "\(ours)")
            }
        }

        /// What the library says of its rdma_cm (`--verbose`).
        private static let served = "connections of software devices; the kernel's rdma_cm is not used"
    }

    /// The library in front of libibverbs, and a device that libibverbs serves.
    @Suite("verbs run over the kernel's rxe")
    struct DropInTests {
        @Test("the context of rxe is libibverbs's own, with the functions that post and poll of its provider")
        func untouched() async throws {
            try await Bench.run { _ in
                let program = try #require(ProcessInfo.processInfo.environment["RDMA_TEST_UNTOUCHED"])
                let outcome = try await Tool.run("run", "--", program, "rxe0")
                #expect(outcome.status == 0 && outcome.output.contains("untouched: all of rxe0"), "\(outcome)")
                // Without the library in front, there is no second one.
                let failure = await #expect(throws: NetworkNamespace.Failure.self) {
                    try await Bench.shell("\(program) rxe0")
                }
                #expect("\(failure, default: "nil")".contains("dl_iterate_phdr"))
            }
        }
    }
}
