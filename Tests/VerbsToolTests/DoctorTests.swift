import FoundationEssentials
import ProviderLoader
import SystemPackage
import Testing

@testable import VerbsCommand

/// A simulated machine with one working kernel device, in a temporary directory; each test causes one problem in it.
private final class FakeMachine {
    let root: String
    var view: SystemView

    init() throws {
        root = "/tmp/verbs-doctor-\(UUID().uuidString)"
        view = SystemView(
            root: root, userID: 1000, lockableMemory: nil, environment: [:],
            accessError: { _ in nil }, bindError: { _ in nil }, loadError: { _ in nil },
            survey: try decode(Survey.self, #"{"entries": [], "listings": [], "problems": [], "messages": []}"#),
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
        try write("/proc/self/comm", "verbs\n")
    }

    static let udpHeader =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer"
        + " drops\n"

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

    /// The findings of a check; keeps the directory until the check has run.
    func check(_ body: (SystemView) -> [Finding]) -> [Finding] {
        withExtendedLifetime(self) { body(view) }
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }
}

/// Decodes a value from JSON. Some values of the loader have no public initializer.
private func decode<Value: Decodable>(_ type: Value.Type, _ json: String) throws -> Value {
    try JSONDecoder().decode(type, from: Data(json.utf8))
}

/// The only finding with a status other than ok.
private func onlyProblem(_ findings: [Finding]) throws -> Finding {
    let bad = findings.filter { $0.status != .ok }
    try #require(bad.count == 1, "\(findings)")
    return bad[0]
}

@Suite("verbs doctor detects every problem and gives a hint")
struct DoctorTests {
    @Test("system: no /proc, few file descriptors, a forbidden system call, no thread can be started")
    func system() throws {
        let machine = try FakeMachine()
        machine.view.probes = [SystemProbe(call: "eventfd(2)", error: nil)]
        #expect(machine.check { $0.examineSystem() }.map(\.status) == [.ok])

        machine.view.freeDescriptors = 3
        // EMFILE of a call is not reported a second time.
        machine.view.probes = [SystemProbe(call: "eventfd(2)", error: .tooManyOpenFiles)]
        let few = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(
            few.status == .error && few.message.hasPrefix("only 3 more file descriptors")
                && few.hint!.contains("ulimit -n"))

        machine.view.freeDescriptors = nil
        machine.view.probes = [SystemProbe(call: "eventfd(2)", error: .notPermitted)]
        let forbidden = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(forbidden.message == "eventfd(2) fails: EPERM (Operation not permitted)")
        #expect(forbidden.status == .error && forbidden.hint!.contains("seccomp"))

        machine.view.probes = [SystemProbe(call: "clone(2)", error: .resourceTemporarilyUnavailable)]
        #expect(try onlyProblem(machine.check { $0.examineSystem() }).hint!.contains("ulimit -u"))
        #expect(try onlyProblem(machine.check { $0.examineSystem() }).hint!.contains("ulimit -v"))

        machine.view.probes = [
            SystemProbe(call: "memfd_create(2)", error: .fileTooLarge, fallback: "packets go through sockets")
        ]
        let small = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(small.status == .warning && small.hint!.contains("ulimit -f"))
        #expect(small.message == "memfd_create(2) fails: EFBIG (File too large); packets go through sockets")

        machine.view.probes = []
        try machine.remove("/proc/self")
        let proc = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(proc.status == .warning && proc.hint == "mount -t proc proc /proc")
    }

    @Test("system: all slots of soft devices are in use; another user holds some")
    func slots() throws {
        let machine = try FakeMachine()
        machine.view.slots = SlotUse(own: 255, foreign: 0)
        #expect(machine.check { $0.examineSystem() }.map(\.status) == [.ok])
        machine.view.slots = SlotUse(own: 256, foreign: 0)
        let full = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(full.status == .error && full.message.hasPrefix("all 256 slots") && full.hint!.contains("ss -xlp"))
        machine.view.slots = SlotUse(own: 3, foreign: 7)
        let foreign = try onlyProblem(machine.check { $0.examineSystem() })
        #expect(foreign.status == .warning && foreign.hint!.contains("rootless container"))
        #expect(foreign.message == "another user holds 7 of this user's 256 slots for soft devices")
        machine.view.slots = SlotUse(own: 200, foreign: 56)
        #expect(machine.check { $0.examineSystem() }.map(\.status) == [.error, .warning])
    }

    @Test("devices: if they cannot be listed, the finding has the reason, and no hint to bring up lo")
    func unlisted() throws {
        let machine = try FakeMachine()
        machine.view.openings = []
        machine.view.survey.problems = [
            Problem(path: nil, message: "soft: it cannot list its devices: EPERM", hint: "", code: 1)
        ]
        let fault = try onlyProblem(machine.check { $0.examineDevices() })
        #expect(fault.status == .error && fault.message.hasSuffix("it cannot list its devices: EPERM"))
        #expect(!fault.hint!.contains("ip link"))
        #expect(machine.check { $0.examineFiles() }.map(\.status) == [.ok])
    }

    @Test("a machine without problems: every check has an ok finding, and no other")
    func healthy() throws {
        let findings = try FakeMachine().check { $0.examine() }
        #expect(findings.allSatisfy { $0.status == .ok }, "\(findings)")
        #expect(Set(findings.map(\.check)) == Set(Finding.Check.allCases))
    }

    @Test("kernel: no RDMA, netlink forbidden, devices that are not shared, fork(2) without copies")
    func kernel() throws {
        let machine = try FakeMachine()
        machine.view.sharesDevices = false
        var finding = try onlyProblem(machine.check { $0.examineKernel() })
        #expect(finding.status == .note && finding.hint!.contains("rdma system set netns shared"))
        machine.view.sharesDevices = true
        machine.view.copiesOnFork = false
        finding = try onlyProblem(machine.check { $0.examineKernel() })
        #expect(finding.status == .note && finding.hint!.contains("RDMAV_FORK_SAFE"))
        machine.view.kernelProblem = ToolError(.noDevice, "its netlink socket cannot be opened", hint: "seccomp")
        finding = try onlyProblem(machine.check { $0.examineKernel() })
        #expect(finding == .warning(.kernel, "its netlink socket cannot be opened", try: "seccomp"))
        try machine.remove("/sys/class/infiniband")
        #expect(try onlyProblem(machine.check { $0.examineKernel() }).status == .note)
    }

    @Test("kernel: a known adapter without a driver, with another one, without its RDMA module; other functions")
    func adapters() throws {
        let machine = try FakeMachine()
        let address = "/sys/bus/pci/devices/0000:3b:00.0"
        func function(_ vendor: String, _ device: String, class pciClass: String = "0x020000", driver: String?) throws {
            try? machine.remove("/sys/bus/pci")
            for (file, text) in [("vendor", vendor), ("device", device), ("class", pciClass)] {
                try machine.write("\(address)/\(file)", text + "\n")
            }
            guard let driver else { return }
            try FileManager.default.createSymbolicLink(
                atPath: machine.root + address + "/driver", withDestinationPath: "../../../../bus/pci/drivers/\(driver)"
            )
        }
        #expect(machine.check { $0.examineAdapters() }.isEmpty, "without PCI")

        try function("0x15b3", "0x1019", driver: nil)
        var finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.check == .kernel && finding.status == .warning)
        #expect(
            finding.message
                == "PCI function 0000:3b:00.0 (NVIDIA Connect-IB, ConnectX-4 or later, or BlueField, 15b3:1019)"
                + " has no kernel driver: it is no RDMA device")
        #expect(finding.hint!.contains("modprobe -a mlx5_core mlx5_ib"))
        #expect(machine.check { $0.examine() }.contains(finding))

        try function("0x15b3", "0x1019", driver: "vfio-pci")
        finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.status == .note && finding.message.contains("is bound to vfio-pci, not to mlx5_core"))
        #expect(finding.hint!.hasSuffix("driverctl unset-override 0000:3b:00.0"))

        try function("0x15b3", "0x1019", driver: "mlx5_core")
        finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.status == .note && finding.hint!.contains("modprobe mlx5_ib"))
        machine.view.sharesDevices = false
        #expect(machine.check { $0.examineAdapters() }.isEmpty, "the kernel may hide the device")
        machine.view.sharesDevices = true
        try machine.write("\(address)/infiniband/mlx5_0/node_type", "1: CA\n")
        #expect(machine.check { $0.examineAdapters() }.isEmpty)

        for (vendor, device, hint) in [
            ("0x15b3", "0x1003", "mlx4_core mlx4_ib"), ("0x1425", "0x6407", "cxgb4 iw_cxgb4"),
            ("0x8086", "0x24f0", "modprobe -a hfi1;"), ("0x1d0f", "0xefa2", "modprobe -a efa;"),
        ] {
            try function(vendor, device, driver: nil)
            #expect(try onlyProblem(machine.check { $0.examineAdapters() }).hint!.contains(hint))
        }
        // A storage function of an adapter, an Ethernet adapter without RDMA, and files that are not numbers.
        for (vendor, device, pciClass) in [
            ("0x1425", "0x6507", "0x010000"), ("0x15b3", "0x1019", "0x058000"), ("0x8086", "0x100e", "0x020000"),
            ("0x15b3", "", "0x020000"), ("mellanox", "0x1019", "0x020000"), ("0x115b3", "0x1019", "0x020000"),
        ] {
            try function(vendor, device, class: pciClass, driver: nil)
            #expect(machine.check { $0.examineAdapters() }.isEmpty, "\(vendor) \(device) \(pciClass)")
        }
    }

    @Test("kernel: functions of an adapter with an RDMA device, as with RoCE LAG; SR-IOV virtual functions")
    func adaptersWithSeveralFunctions() throws {
        let machine = try FakeMachine()
        func function(_ address: String, _ device: String, driver: String?, of physical: String? = nil) throws {
            let path = "/sys/bus/pci/devices/\(address)"
            for (file, text) in [("vendor", "0x15b3"), ("device", device), ("class", "0x020000")] {
                try machine.write("\(path)/\(file)", text + "\n")
            }
            for (link, target) in [
                ("driver", driver.map { "../../../../bus/pci/drivers/\($0)" }), ("physfn", physical),
            ] {
                guard let target else { continue }
                try FileManager.default.createSymbolicLink(
                    atPath: "\(machine.root)\(path)/\(link)",
                    withDestinationPath: link == "physfn" ? "../\(target)" : target)
            }
        }
        try function("0000:3b:00.0", "0x101d", driver: "mlx5_core")
        try machine.write("/sys/bus/pci/devices/0000:3b:00.0/infiniband/mlx5_bond_0/node_type", "1: CA\n")
        try function("0000:3b:00.1", "0x101d", driver: "mlx5_core")
        #expect(machine.check { $0.examineAdapters() }.isEmpty, "the device has the ports of both functions")
        try function("0000:3c:00.1", "0x101d", driver: "mlx5_core")
        var finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.status == .note && finding.message.hasPrefix("PCI function 0000:3c:00.1 "))
        try machine.remove("/sys/bus/pci/devices/0000:3c:00.1")
        try function("0000:3b:00.7", "0x101d", driver: nil)
        finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.status == .note && finding.message.contains("0000:3b:00.7 "), "another function is a device")
        try machine.remove("/sys/bus/pci/devices/0000:3b:00.7")

        try function("0000:3b:00.2", "0x101e", driver: nil, of: "0000:3b:00.0")
        try function("0000:3b:00.3", "0x101e", driver: "vfio-pci", of: "0000:3b:00.0")
        try function("0000:3b:00.4", "0x101e", driver: "mlx5_core", of: "0000:3b:00.0")
        finding = try onlyProblem(machine.check { $0.examineAdapters() })
        #expect(finding.status == .note && finding.message.hasSuffix("are no RDMA devices: 2, from 0000:3b:00.2"))
        #expect(finding.hint!.hasPrefix("nothing, if virtual machines or DPDK use them"))
    }

    @Test("connections: the device node of the connection manager is missing, or access is denied")
    func connections() throws {
        let machine = try FakeMachine()
        machine.view.accessError = { $0.hasSuffix("rdma_cm") ? .noSuchFileOrDirectory : nil }
        var finding = try onlyProblem(machine.check { $0.examineConnections() })
        #expect(finding.status == .warning && finding.hint!.contains("modprobe rdma_ucm"))
        machine.view.accessError = { $0.hasSuffix("rdma_cm") ? .permissionDenied : nil }
        finding = try onlyProblem(machine.check { $0.examineConnections() })
        #expect(finding.status == .warning && finding.message.contains("rdma_cm cannot be opened"))
    }

    @Test("addresses: a port without a GID, a port with link-local GIDs only")
    func addresses() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].ports[0].reach = .linkLocal
        var finding = try onlyProblem(machine.check { $0.examineAddresses() })
        #expect(finding.status == .warning && finding.message.contains("only link-local GIDs"))
        #expect(finding.hint!.contains("ip address add ADDRESS/PREFIX dev eth1"))
        machine.view.openings[0].ports[0].reach = .noGID
        finding = try onlyProblem(machine.check { $0.examineAddresses() })
        #expect(finding.message.contains("has no GID"))
    }

    @Test("addresses: duplicate address detection of an IPv6 address is not finished, or failed")
    func duplicateAddresses() throws {
        let machine = try FakeMachine()
        func table(_ flags: String, _ interface: String = "eth1") throws {
            try machine.write(
                "/proc/net/if_inet6", "fd050000000000000000000000000001 02 40 00 \(flags)    \(interface)\n")
        }
        for (flags, interface) in [("80", "eth1"), ("44", "eth1"), ("08", "eth7")] {
            try table(flags, interface)
            #expect(machine.check { $0.examineAddresses() }.map(\.status) == [.ok])
        }
        try table("40")
        var finding = try onlyProblem(machine.check { $0.examineAddresses() })
        #expect(finding.message.contains("fd05:0000:0000:0000:0000:0000:0000:0001 yet"), "\(finding)")
        try table("c8")
        finding = try onlyProblem(machine.check { $0.examineAddresses() })
        #expect(finding.message.contains("another host uses it"), "\(finding)")
    }

    @Test("devices: there is no device")
    func noDevice() throws {
        let machine = try FakeMachine()
        machine.view.openings = []
        let finding = try onlyProblem(machine.check { $0.examineDevices() })
        #expect(finding.status == .error && finding.hint!.contains("ip link set lo up"))
    }

    @Test("devices: only the loopback interface has a software device, another interface could have one")
    func loopbackOnly() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].device = "soft0"
        machine.view.openings[0].interface = "lo"
        #expect(machine.check { $0.examineDevices() }.allSatisfy { $0.status == .ok })
        machine.view.interfacesOnRequest = ["eth0", "wlan0"]
        let finding = try onlyProblem(machine.check { $0.examineDevices() })
        #expect(finding.status == .note && finding.message.contains("soft_eth0, soft_wlan0"))
        #expect(finding.hint!.contains("RDMA_SOFT_INTERFACES=eth0,wlan0"))
    }

    @Test("devices: a device cannot be opened")
    func doesNotOpen() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].failure = ToolError(.verbFailed, "permission denied", hint: "join the group rdma")
        let finding = try onlyProblem(machine.check { $0.examineDevices() })
        #expect(finding == .error(.devices, "mlx5_0 cannot be opened: permission denied", try: "join the group rdma"))
    }

    @Test("devices: every port of a device is down")
    func portDown() throws {
        let machine = try FakeMachine()
        machine.view.openings[0].ports[0].isActive = false
        machine.view.openings[0].ports[0].state = "down"
        let finding = try onlyProblem(machine.check { $0.examineDevices() })
        #expect(finding.status == .error && finding.message.contains("port 1 is down"))
        #expect(finding.hint!.contains("ip link set eth1 up"))
        var other = machine.view.openings[0]
        other.ports[0].isActive = true
        machine.view.openings.append(other)
        #expect(try onlyProblem(machine.check { $0.examineDevices() }).status == .warning, "another device can be used")
    }

    @Test("libraries: libibverbs is missing, the distribution's providers are missing")
    func libraries() throws {
        let machine = try FakeMachine()
        machine.view.loadError = { _ in "cannot open shared object file" }
        #expect(try onlyProblem(machine.check { $0.examineLibraries() }).hint!.contains("apt install libibverbs1"))
        machine.view.loadError = { _ in nil }
        try machine.remove("/etc/libibverbs.d/mlx5.driver")
        let finding = try onlyProblem(machine.check { $0.examineLibraries() })
        #expect(finding.status == .warning && finding.hint!.contains("ibverbs-providers"))
    }

    @Test("permissions: module not loaded, device node missing, access denied")
    func permissions() throws {
        let machine = try FakeMachine()
        machine.view.accessError = { _ in .permissionDenied }
        var finding = try onlyProblem(machine.check { $0.examinePermissions() })
        #expect(finding.status == .error && finding.message.contains("/dev/infiniband/uverbs0 cannot be opened"))
        #expect(finding.hint!.contains("rdma"))
        machine.view.accessError = { _ in .noSuchFileOrDirectory }
        finding = try onlyProblem(machine.check { $0.examinePermissions() })
        #expect(finding.status == .error && finding.message == "/dev/infiniband/uverbs0 is missing")
        try machine.remove("/sys/class/infiniband_verbs")
        finding = try onlyProblem(machine.check { $0.examinePermissions() })
        #expect(finding.status == .error && finding.hint == "load the module: modprobe ib_uverbs")
        try machine.remove("/sys/class/infiniband")
        #expect(try onlyProblem(machine.check { $0.examinePermissions() }).status == .note)
    }

    @Test("memory: the limit of pinned memory")
    func memory() throws {
        let machine = try FakeMachine()
        machine.view.lockableMemory = 8 << 20
        var finding = try onlyProblem(machine.check { $0.examineMemory() })
        #expect(finding.status == .warning && finding.message.contains("8 MiB"))
        #expect(finding.hint!.contains("ulimit -l unlimited"))
        machine.view.ignoresMemoryLimit = true
        #expect(machine.check { $0.examineMemory() }.allSatisfy { $0.status == .ok })
        machine.view.ignoresMemoryLimit = false
        machine.view.lockableMemory = 1 << 30
        #expect(machine.check { $0.examineMemory() }.allSatisfy { $0.status == .ok })
        machine.view.lockableMemory = 64 << 10
        try machine.remove("/sys/class/infiniband")
        finding = try onlyProblem(machine.check { $0.examineMemory() })
        #expect(finding.status == .note)
    }

    @Test("port: 4791 is held by another user, without SO_REUSEPORT, by rdma_rxe, or by an unknown process")
    func port() throws {
        let machine = try FakeMachine()
        try machine.udpSocket(port: "12B7", user: 1001)
        var finding = try onlyProblem(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.message.contains("user 1001 holds UDP port 4791"))
        try machine.udpSocket(port: "12B7", user: 1000)
        #expect(machine.check { $0.examinePort() }.allSatisfy { $0.status == .ok })
        machine.view.bindError = { $0 == 4791 ? .addressInUse : nil }
        finding = try onlyProblem(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.message.contains("without SO_REUSEPORT"))
        machine.view.bindError = { _ in nil }
        try machine.udpSocket(port: "12B8", user: 1001)
        #expect(machine.check { $0.examinePort() }.allSatisfy { $0.status == .ok })
        machine.view.bindError = { $0 == 4791 ? .addressInUse : nil }
        finding = try onlyProblem(machine.check { $0.examinePort() })
        #expect(finding.status == .warning && finding.message.contains("cannot be bound"))
        try machine.write("/sys/module/rdma_rxe/initstate", "live\n")
        finding = try onlyProblem(machine.check { $0.examinePort() })
        #expect(finding.message.contains("rdma_rxe") && finding.hint!.contains("modprobe -r rdma_rxe"))
    }

    @Test("mtu: too small for RoCE, smaller than the maximum")
    func mtu() throws {
        let machine = try FakeMachine()
        try machine.write("/sys/class/net/eth1/mtu", "300\n")
        #expect(try onlyProblem(machine.check { $0.examineMTU() }).status == .error)
        try machine.write("/sys/class/net/eth1/mtu", "1500\n")
        machine.view.openings[0].ports[0].activeMTU = 1024
        let finding = try onlyProblem(machine.check { $0.examineMTU() })
        #expect(finding.status == .note && finding.hint!.contains("ip link set eth1 mtu 4200"))
    }

    @Test("providers: a device without a provider, and one that its second-ranked provider serves")
    func providers() throws {
        let machine = try FakeMachine()
        let error = LoaderError(device: "mlx5_0", code: 2, message: "no driver file matches", hint: "install one")
        machine.view.survey.entries = [
            try entry(warnings: [], error: error), try entry(warnings: ["native refused"], error: nil),
        ]
        let findings = machine.check { $0.examineProviders() }
        #expect(findings.map(\.status) == [.error, .warning])
        #expect(findings[0].hint == "install one")
        #expect(findings[1].hint == "see every candidate: verbs providers mlx5_0")
    }

    @Test("providers: a warning that a provider logged; the check port reports UDP port 4791")
    func providerMessages() throws {
        let machine = try FakeMachine()
        machine.view.survey.messages = ["no place for a registry", "UDP port 4791 cannot be had"].map {
            LogMessage(level: .warning, provider: "soft", text: $0)
        }
        let finding = try onlyProblem(machine.check { $0.examineProviders() })
        #expect(finding.status == .warning && finding.message == "soft warns: no place for a registry")
    }

    @Test("files: a driver file with an error")
    func files() throws {
        let machine = try FakeMachine()
        machine.view.survey.problems = [
            Problem(
                path: "/etc/ibverbs.d/x.driver", line: 3, message: "unknown keyword \"foo\"", hint: "remove the line")
        ]
        let finding = try onlyProblem(machine.check { $0.examineFiles() })
        #expect(
            finding
                == .warning(.files, "/etc/ibverbs.d/x.driver:3: unknown keyword \"foo\"", try: "remove the line"))
    }

    @Test("settings: environment variables that affect the choice of providers")
    func settings() throws {
        let machine = try FakeMachine()
        machine.view.environment = ["RDMA_PROVIDER": "libibverbs", "RDMA_DRIVER_PATH": ""]
        let finding = try onlyProblem(machine.check { $0.examineSettings() })
        let expected = "RDMA_PROVIDER=libibverbs affects the choice of providers"
        #expect(finding == .note(.settings, expected, try: "unset RDMA_PROVIDER"))
    }

    private func entry(warnings: [String], error: LoaderError?) throws -> ProviderSelection {
        struct Entry: Encodable {
            var device = DeviceDescription(name: "mlx5_0", kind: .kernel)
            var candidates: [Candidate] = []
            var warnings: [String]
            var error: LoaderError?
        }
        let json = try JSONEncoder().encode(Entry(warnings: warnings, error: error))
        return try decode(ProviderSelection.self, String(decoding: json, as: UTF8.self))
    }
}
