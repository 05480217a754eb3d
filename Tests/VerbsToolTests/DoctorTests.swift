import FoundationEssentials
import ProviderLoader
import SystemPackage
import Testing

@testable import verbs

/// A machine with one healthy kernel device, in a directory of its own; tests break one thing of it.
private final class FakeMachine {
    let root: String
    var view: SystemView

    init() throws {
        root = "/tmp/verbs-doctor-\(UUID().uuidString)"
        view = SystemView(
            root: root, userID: 1000, lockableMemory: nil, environment: [:],
            accessError: { _ in nil }, bindError: { _ in nil }, loadError: { _ in nil },
            survey: try decode(Survey.self, #"{"entries": [], "problems": [], "messages": []}"#),
            openings: [
                SystemView.Opening(
                    device: "mlx5_0", interface: "eth1",
                    ports: [.init(number: 1, isActive: true, state: "active", activeMTU: 4096, maximumMTU: 4096)])
            ])
        try write("/sys/class/infiniband/mlx5_0/node_type", "1: CA\n")
        try write("/sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0\n")
        try write("/sys/class/net/eth1/mtu", "4200\n")
        try write("/etc/libibverbs.d/mlx5.driver", "driver mlx5\n")
        try write("/proc/net/udp", Self.udpHeader)
    }

    static let udpHeader =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"

    func write(_ path: String, _ text: String) throws {
        let file = root + path
        try FileManager.default.createDirectory(
            atPath: String(file[..<file.lastIndex(of: "/")!]), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: file))
    }

    func remove(_ path: String) throws { try FileManager.default.removeItem(atPath: root + path) }

    func udpSocket(port: String, user: UInt32) throws {
        try write(
            "/proc/net/udp",
            Self.udpHeader + "  123: 0100007F:\(port) 00000000:0000 07 00000000:00000000 00:00000000 00000000  \(user)"
                + "        0 19243 2 0000000000000000 0\n")
    }

    /// What a check says, while the directory is there.
    func check(_ body: (SystemView) -> [Finding]) -> [Finding] {
        withExtendedLifetime(self) { body(view) }
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }
}

/// The loader alone makes some of its values: here they come from their JSON form.
private func decode<Value: Decodable>(_ type: Value.Type, _ json: String) throws -> Value {
    try JSONDecoder().decode(type, from: Data(json.utf8))
}

/// The only finding that is not in order.
private func trouble(_ findings: [Finding]) throws -> Finding {
    let bad = findings.filter { $0.status != .ok }
    try #require(bad.count == 1, "\(findings)")
    return bad[0]
}

@Suite("verbs doctor: every fault is found and comes with what to try")
struct DoctorTests {
    @Test("a healthy machine has no finding but \"ok\", and every check has one")
    func healthy() throws {
        let findings = try FakeMachine().check { $0.examine() }
        #expect(findings.allSatisfy { $0.status == .ok }, "\(findings)")
        #expect(Set(findings.map(\.check)) == Set(Finding.Check.allCases))
    }

    @Test("the kernel: no RDMA, netlink forbidden, devices that are not shared")
    func kernel() throws {
        let machine = try FakeMachine()
        machine.view.sharesDevices = false
        var finding = try trouble(machine.check { $0.examineKernel() })
        #expect(finding.status == .note && finding.remedy!.contains("rdma system set netns shared"))
        machine.view.kernelObstacle = ToolError(.noDevice, "its netlink socket cannot be opened", hint: "seccomp")
        finding = try trouble(machine.check { $0.examineKernel() })
        #expect(finding == .warning(.kernel, "its netlink socket cannot be opened", try: "seccomp"))
        try machine.remove("/sys/class/infiniband")
        #expect(try trouble(machine.check { $0.examineKernel() }).status == .note)
    }

    @Test("the connection manager's node: missing, not permitted")
    func connections() throws {
        let machine = try FakeMachine()
        machine.view.accessError = { $0.hasSuffix("rdma_cm") ? .noSuchFileOrDirectory : nil }
        var finding = try trouble(machine.check { $0.examineConnections() })
        #expect(finding.status == .warning && finding.remedy!.contains("modprobe rdma_ucm"))
        machine.view.accessError = { $0.hasSuffix("rdma_cm") ? .permissionDenied : nil }
        finding = try trouble(machine.check { $0.examineConnections() })
        #expect(finding.status == .warning && finding.found.contains("rdma_cm cannot be opened"))
    }

    @Test("a port without a GID, and one with link-local ones only")
    func addresses() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].ports[0].reach = .link
        var finding = try trouble(machine.check { $0.examineAddresses() })
        #expect(finding.status == .warning && finding.found.contains("only link-local GIDs"))
        #expect(finding.remedy!.contains("ip address add ADDRESS/PREFIX dev eth1"))
        machine.view.openings[0].ports[0].reach = .nobody
        finding = try trouble(machine.check { $0.examineAddresses() })
        #expect(finding.found.contains("has no GID"))
    }

    @Test("no device at all")
    func noDevice() throws {
        let machine = try FakeMachine()
        machine.view.openings = []
        let finding = try trouble(machine.check { $0.examineDevices() })
        #expect(finding.status == .fault && finding.remedy!.contains("ip link set lo up"))
    }

    @Test("a device that does not open")
    func doesNotOpen() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].failure = ToolError(.verbFailed, "permission denied", hint: "join the group rdma")
        let finding = try trouble(machine.check { $0.examineDevices() })
        #expect(finding == .fault(.devices, "mlx5_0 does not open: permission denied", try: "join the group rdma"))
    }

    @Test("a device all of whose ports are down")
    func portDown() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].ports[0].isActive = false
        machine.view.openings[0].ports[0].state = "down"
        let finding = try trouble(machine.check { $0.examineDevices() })
        #expect(finding.status == .fault && finding.found.contains("port 1 is down"))
        #expect(finding.remedy!.contains("ip link set eth1 up"))
        var other = machine.view.openings[0]
        other.ports[0].isActive = true
        machine.view.openings.append(other)
        #expect(try trouble(machine.check { $0.examineDevices() }).status == .warning, "another device can be used")
    }

    @Test("libibverbs missing, the distribution's providers missing")
    func libraries() throws {
        let machine = try FakeMachine()
        machine.view.loadError = { _ in "cannot open shared object file" }
        #expect(try trouble(machine.check { $0.examineLibraries() }).remedy!.contains("apt install libibverbs1"))
        machine.view.loadError = { _ in nil }
        try machine.remove("/etc/libibverbs.d/mlx5.driver")
        let finding = try trouble(machine.check { $0.examineLibraries() })
        #expect(finding.status == .warning && finding.remedy!.contains("ibverbs-providers"))
    }

    @Test("device nodes: module not loaded, node missing, no permission")
    func permissions() throws {
        let machine = try FakeMachine()
        machine.view.accessError = { _ in .permissionDenied }
        var finding = try trouble(machine.check { $0.examinePermissions() })
        #expect(finding.status == .fault && finding.found.contains("/dev/infiniband/uverbs0 cannot be opened"))
        #expect(finding.remedy!.contains("rdma"))
        machine.view.accessError = { _ in .noSuchFileOrDirectory }
        finding = try trouble(machine.check { $0.examinePermissions() })
        #expect(finding.status == .fault && finding.found == "/dev/infiniband/uverbs0 is missing")
        try machine.remove("/sys/class/infiniband_verbs")
        finding = try trouble(machine.check { $0.examinePermissions() })
        #expect(finding.status == .fault && finding.remedy == "load the module: modprobe ib_uverbs")
        try machine.remove("/sys/class/infiniband")
        #expect(try trouble(machine.check { $0.examinePermissions() }).status == .note)
    }

    @Test("the limit of pinned memory")
    func memory() throws {
        let machine = try FakeMachine()
        machine.view.lockableMemory = 8 << 20
        var finding = try trouble(machine.check { $0.examineMemory() })
        #expect(finding.status == .warning && finding.found.contains("8 MiB"))
        #expect(finding.remedy!.contains("ulimit -l unlimited"))
        machine.view.ignoresMemoryLimit = true
        #expect(machine.check { $0.examineMemory() }.allSatisfy { $0.status == .ok })
        machine.view.ignoresMemoryLimit = false
        machine.view.lockableMemory = 1 << 30
        #expect(machine.check { $0.examineMemory() }.allSatisfy { $0.status == .ok })
        machine.view.lockableMemory = 64 << 10
        try machine.remove("/sys/class/infiniband")
        finding = try trouble(machine.check { $0.examineMemory() })
        #expect(finding.status == .note)
    }

    @Test("UDP port 4791: held by another user, by a program that does not share it, by rdma_rxe, by nobody who shows")
    func port() throws {
        let machine = try FakeMachine()
        try machine.udpSocket(port: "12B7", user: 1001)
        var finding = try trouble(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.found.contains("user 1001 holds UDP port 4791"))
        try machine.udpSocket(port: "12B7", user: 1000)
        #expect(machine.check { $0.examinePort() }.allSatisfy { $0.status == .ok })
        machine.view.bindError = { $0 == 4791 ? .addressInUse : nil }
        finding = try trouble(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.found.contains("does not share it"))
        machine.view.bindError = { _ in nil }
        try machine.udpSocket(port: "12B8", user: 1001)
        #expect(machine.check { $0.examinePort() }.allSatisfy { $0.status == .ok })
        machine.view.bindError = { $0 == 4791 ? .addressInUse : nil }
        finding = try trouble(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.found.contains("cannot be bound"))
        try machine.write("/sys/module/rdma_rxe/initstate", "live\n")
        finding = try trouble(machine.check { $0.examinePort() })
        #expect(finding.found.contains("rdma_rxe") && finding.remedy!.contains("modprobe -r rdma_rxe"))
    }

    @Test("MTU: too small for RoCE, smaller than it could be")
    func mtu() throws {
        let machine = try FakeMachine()
        try machine.write("/sys/class/net/eth1/mtu", "300\n")
        #expect(try trouble(machine.check { $0.examineMTU() }).status == .fault)
        try machine.write("/sys/class/net/eth1/mtu", "1500\n")
        machine.view.openings[0].ports[0].activeMTU = 1024
        let finding = try trouble(machine.check { $0.examineMTU() })
        #expect(finding.status == .note && finding.remedy!.contains("ip link set eth1 mtu 4200"))
    }

    @Test("a device that nobody serves, and one that is served by the second best")
    func providers() throws {
        let machine = try FakeMachine()
        let error = LoaderError(device: "mlx5_0", code: 2, sentence: "no driver file matches", hint: "install one")
        machine.view.survey.entries = [
            try entry(warnings: [], error: error), try entry(warnings: ["native refused"], error: nil),
        ]
        let findings = machine.check { $0.examineProviders() }
        #expect(findings.map(\.status) == [.fault, .warning])
        #expect(findings[0].remedy == "install one")
        #expect(findings[1].remedy == "see every candidate: verbs providers mlx5_0")
    }

    @Test("a provider that has warned of something; of the port, another check says it")
    func providerMessages() throws {
        let machine = try FakeMachine()
        machine.view.survey.messages = ["no place for a registry", "UDP port 4791 cannot be had"].map {
            LogMessage(level: .warning, provider: "soft", text: $0)
        }
        let finding = try trouble(machine.check { $0.examineProviders() })
        #expect(finding.status == .warning && finding.found == "soft says: no place for a registry")
    }

    @Test("driver files with faults")
    func files() throws {
        let machine = try FakeMachine()
        machine.view.survey.problems = [
            Problem(
                path: "/etc/ibverbs.d/x.driver", line: 3, sentence: "unknown keyword \"foo\"", hint: "remove the line")
        ]
        let finding = try trouble(machine.check { $0.examineFiles() })
        #expect(
            finding
                == .warning(.files, "/etc/ibverbs.d/x.driver:3: unknown keyword \"foo\"", try: "remove the line"))
    }

    @Test("environment variables that decide over providers")
    func settings() throws {
        let machine = try FakeMachine()
        machine.view.environment = ["RDMA_PROVIDER": "libibverbs", "RDMA_DRIVER_PATH": ""]
        let finding = try trouble(machine.check { $0.examineSettings() })
        let expected = "RDMA_PROVIDER=libibverbs decides over providers"
        #expect(finding == .note(.settings, expected, try: "unset RDMA_PROVIDER"))
    }

    private func entry(warnings: [String], error: LoaderError?) throws -> Survey.Entry {
        struct Entry: Encodable {
            var device = DeviceDescription(name: "mlx5_0", kind: .kernel)
            var candidates: [Candidate] = []
            var warnings: [String]
            var error: LoaderError?
        }
        let json = try JSONEncoder().encode(Entry(warnings: warnings, error: error))
        return try decode(Survey.Entry.self, String(decoding: json, as: UTF8.self))
    }
}
