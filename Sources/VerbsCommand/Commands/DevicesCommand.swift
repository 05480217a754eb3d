import ArgumentParser
import Verbs

struct DevicesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "devices",
        abstract: "List the RDMA devices of this machine.",
        discussion: """
            Opens no device. Opens the library of each device's provider, and the libraries whose driver files say that they \
            list software devices. Exit code 2 if there is no device.
            """)

    @OptionGroup var output: OutputOptions

    func run() throws {
        let devices = try DeviceList.current()
        let kernel = KernelView.current()
        let report = DevicesReport(
            devices: devices.map { DevicesReport.Entry($0, kernel) }, onRequest: devices.onRequest.map(\.name),
            kernelProblem: kernel.error?.description,
            problems: devices.problems.filter { $0.code != nil }.map(\.description))
        try output.print(report, about: devices)
    }
}

/// The output of `verbs devices`: Documentation/schema/devices.json.
struct DevicesReport: Report {
    struct Entry: Encodable {
        var identity: DeviceIdentity
        var service: Service

        init(_ device: Device, _ kernel: KernelView) {
            identity = DeviceIdentity(device, kernel)
            let selection = device.selectProvider()
            service = Service(
                provider: selection.chosen?.provider, warnings: selection.warnings,
                problem: selection.error?.message)
        }

        func encode(to encoder: any Encoder) throws {
            try identity.encode(to: encoder)
            try service.encode(to: encoder)
        }
    }

    struct Service: Encodable {
        /// Name of the provider that serves the device; nil: no provider does.
        var provider: String?
        var warnings: [String]
        /// Why no provider serves the device.
        var problem: String?
    }

    let schema = "verbs-devices-2"
    var devices: [Entry]
    /// Software devices that are opened on request only: by `--device`, or for a peer that is reached through them.
    var onRequest: [String]
    /// Why the kernel could not be queried for its devices; nil: it was.
    var kernelProblem: String?
    /// Why there can be devices that are not listed.
    var problems: [String]

    var text: String {
        var table = Table(
            .left("device"), .left("provider"), .left("type"), .left("driver"), .left("transport"), .left("node"),
            .left("GUID"),
            .left("interface"))
        for entry in devices {
            let device = entry.identity
            table.add(
                device.name, entry.service.provider ?? "none", device.type, device.driver ?? "",
                device.transport, device.nodeType, device.guid, device.interface ?? device.location ?? "")
        }
        let remarks = devices.flatMap { entry in
            (entry.service.warnings + [entry.service.problem].compactMap { $0 })
                .map { "\(entry.identity.name.printable): \($0.printable)\n" }
        }
        let request = onRequest.isEmpty ? "" : "on request: \(onRequest.joined(separator: ", "))".printable + "\n"
        let unlisted =
            problems.map { "not listed: \($0.printable)\n" } + [kernelProblem.map { "\($0.printable)\n" } ?? ""]
        return table.text + request + (remarks + unlisted).joined()
    }
}
