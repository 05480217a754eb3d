import ArgumentParser
import Glibc
import ProviderLoader
import Verbs

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check this machine for problems that prevent RDMA.",
        discussion: """
            Checks file descriptors, threads and system calls, the kernel, devices, libraries, permissions, the connection \
            manager, the limit of pinned memory, UDP port 4791, addresses, the MTU, providers, driver files and \
            settings, and suggests a remedy for each problem. Exit code 8 if a check finds an error.
            """)

    @Flag(help: "Show also the checks that found no problem.")
    var verbose = false

    @OptionGroup var output: OutputOptions

    func run() throws {
        let kernel = KernelView.current()
        // Also if no device can be listed: the problems contain the reason.
        let devices = DeviceList(ProviderLoader.standard.snapshot())
        let openings = devices.map { SystemView.Opening($0, kernel) }
        // After the devices were opened, so that the survey contains the messages that providers logged meanwhile.
        let survey = devices.survey(of: devices)
        let view = SystemView.current(
            survey: survey, openings: openings, onRequest: devices.onRequest, kernel: kernel)
        let report = DoctorReport(findings: view.examine(), verbose: verbose)
        try output.print(report)
        if report.worst == .error { throw ExitCode(ToolExit.problemFound.rawValue) }
    }
}

/// The output of `verbs doctor`: Documentation/schema/doctor.json.
struct DoctorReport: Report {
    let schema = "verbs-doctor-2"
    var worst: Finding.Status
    var findings: [Finding]
    private let verbose: Bool

    enum CodingKeys: CodingKey { case schema, worst, findings }

    init(findings: [Finding], verbose: Bool) {
        self.findings = findings
        self.verbose = verbose
        worst = findings.map(\.status).max() ?? .ok
    }

    var text: String {
        let shown = findings.filter { verbose || $0.status != .ok }.map { finding in
            let line = "\(finding.status.rawValue): \(finding.check.rawValue): \(finding.message)".printable
            return line + "\n" + (finding.hint.map { "  try: \($0.printable)\n" } ?? "")
        }
        let checks = Set(findings.map(\.check)).count
        let errors = findings.count { $0.status == .error }
        let warnings = findings.count { $0.status == .warning }
        let summary =
            worst < .warning
            ? "\(checks) checks: no problems"
            : "\(checks) checks: \(errors) \(errors == 1 ? "error" : "errors"), \(warnings)"
                + (warnings == 1 ? " warning" : " warnings")
        return shown.joined() + summary + "\n"
    }
}

extension SystemView.Opening {
    /// Opens the device and queries its ports.
    init(_ device: Device, _ kernel: KernelView) {
        self.device = device.name
        interface = device.details.networkInterface ?? kernel.interfaces(of: device.name).first
        isIWARP = device.transportType == .iWARP
        ports = []
        do throws(ToolError) {
            ports = try device.withContext { context throws(VerbsError) in
                let addresses = try context.addresses()
                return try context.ports().map { port in
                    Port(port, addresses: addresses.filter { $0.port == port.number })
                }
            }
        } catch {
            failure = error
        }
        // rdma_cm finds an iWARP device by the addresses of its interface; its GID is a link-layer address.
        guard isIWARP, let interface else { return }
        let reach = Self.hasRoutableAddress(interface) ? SystemView.Opening.Reach.routable : .noAddress
        for index in ports.indices { ports[index].reach = reach }
    }

    /// Whether the interface has an IPv4 address or an IPv6 address that is not link-local.
    private static func hasRoutableAddress(_ interface: String) -> Bool {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return true }
        defer { freeifaddrs(list) }
        return sequence(first: list, next: { $0?.pointee.ifa_next }).contains { entry in
            guard let entry = entry?.pointee, let address = entry.ifa_addr, String(cString: entry.ifa_name) == interface
            else { return false }
            if address.pointee.sa_family == sa_family_t(AF_INET) { return true }
            guard address.pointee.sa_family == sa_family_t(AF_INET6) else { return false }
            return address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { address in
                withUnsafeBytes(of: address.pointee.sin6_addr) { $0[0] != 0xfe || $0[1] & 0xc0 != 0x80 }
            }
        }
    }
}

extension SystemView.Opening.Port {
    init(_ port: PortAttributes, addresses: [PortAddress]) {
        number = port.number
        isActive = port.state == .active || port.state == .activeDefer
        state = port.state.description
        let isLocal = port.linkLayer == .ethernet && addresses.allSatisfy(\.gid.isLinkLocal)
        reach = addresses.isEmpty ? .noGID : isLocal ? .linkLocal : .routable
        activeMTU = UInt64(port.activeMTU.byteCount)
        maximumMTU = UInt64(port.maxMTU.byteCount)
    }
}
