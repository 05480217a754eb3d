import ArgumentParser
import ProviderLoader
import Verbs

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Look for what stands in the way of RDMA on this machine.",
        discussion: """
            Checks the kernel, devices, libraries, permissions, the connection manager, the limit of pinned memory, UDP port \
            4791, addresses, the MTU, providers, driver files and settings, and says for each trouble what to try. Exit \
            code 8 if something stands in the way.
            """)

    @Flag(help: "Show also the checks that found nothing.")
    var verbose = false

    @OptionGroup var output: OutputOptions

    func run() throws {
        let kernel = KernelView.current()
        let openings = Device.all.map { SystemView.Opening($0, kernel) }
        // After the devices were opened, for what the providers then had to say.
        let view = SystemView.current(survey: ProviderLoader.standard.survey(), openings: openings, kernel: kernel)
        let report = DoctorReport(findings: view.examine(), verbose: verbose)
        try output.print(report)
        if report.worst == .fault { throw ExitCode(ToolExit.faultFound.rawValue) }
    }
}

/// What `verbs doctor` prints: Documentation/schema/doctor.json.
struct DoctorReport: Report {
    let schema = "verbs-doctor-1"
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
            let line = "\(finding.status.rawValue): \(finding.check.rawValue): \(finding.found)".printable
            return line + "\n" + (finding.remedy.map { "  try: \($0.printable)\n" } ?? "")
        }
        let checks = Set(findings.map(\.check)).count
        let faults = findings.count { $0.status == .fault }
        let warnings = findings.count { $0.status == .warning }
        let summary =
            worst < .warning
            ? "\(checks) checks: nothing stands in the way"
            : "\(checks) checks: \(faults) in the way, \(warnings) to look at"
        return shown.joined() + summary + "\n"
    }
}

extension SystemView.Opening {
    /// Opens the device and looks at its ports.
    init(_ device: Device, _ kernel: KernelView) {
        self.device = device.name
        interface = device.details.networkInterface ?? kernel.interfaces(of: device.name).first
        ports = []
        do throws(ToolError) {
            ports = try device.ask { context throws(VerbsError) in
                let addresses = try context.addresses()
                return try context.ports().map { port in
                    Port(port, addresses: addresses.filter { $0.port == port.number })
                }
            }
        } catch {
            failure = error
        }
    }
}

extension SystemView.Opening.Port {
    init(_ port: PortAttributes, addresses: [PortAddress]) {
        number = port.number
        isActive = port.state == .active || port.state == .activeDefer
        state = port.state.description
        let isLocal = port.linkLayer == .ethernet && addresses.allSatisfy(\.gid.isLinkLocal)
        reach = addresses.isEmpty ? .nobody : isLocal ? .link : .beyondLink
        activeMTU = UInt64(port.activeMTU.byteCount)
        maximumMTU = UInt64(port.maxMTU.byteCount)
    }
}
