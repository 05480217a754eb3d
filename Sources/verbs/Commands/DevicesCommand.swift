import ArgumentParser
import Verbs

struct DevicesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "devices",
        abstract: "List the RDMA devices of this machine.",
        discussion: "Opens none of them. Exit code 2 if there is none.")

    @OptionGroup var output: OutputOptions

    func run() throws {
        let devices = Device.all
        let kernel = KernelView.current()
        let report = DevicesReport(
            devices: devices.map { DevicesReport.Entry($0, kernel) }, kernelObstacle: kernel.obstacle?.description)
        try output.print(report, about: devices)
    }
}

/// What `verbs devices` prints: Documentation/schema/devices.json.
struct DevicesReport: Report {
    struct Entry: Encodable {
        var identity: DeviceIdentity
        var service: Service

        init(_ device: Device, _ kernel: KernelView) {
            identity = DeviceIdentity(device, kernel)
            service = Service(
                provider: device.provider, warnings: device.warnings, obstacle: device.obstacle?.sentence)
        }

        func encode(to encoder: any Encoder) throws {
            try identity.encode(to: encoder)
            try service.encode(to: encoder)
        }
    }

    struct Service: Encodable {
        /// Who serves it; null: nobody.
        var provider: String?
        var warnings: [String]
        /// Why nobody serves it.
        var obstacle: String?
    }

    let schema = "verbs-devices-1"
    var devices: [Entry]
    /// Why the kernel has told nothing of its devices; absent: it has.
    var kernelObstacle: String?

    var text: String {
        var table = Table(
            .left("device"), .left("provider"), .left("kind"), .left("driver"), .left("transport"), .left("node"),
            .left("GUID"),
            .left("interface"))
        for entry in devices {
            let device = entry.identity
            table.add(
                device.name, entry.service.provider ?? "none", device.kind, device.driver ?? "",
                device.transport, device.nodeType, device.guid, device.interface ?? "")
        }
        let remarks = devices.flatMap { entry in
            (entry.service.warnings + [entry.service.obstacle].compactMap { $0 })
                .map { "\(entry.identity.name.printable): \($0.printable)\n" }
        }
        return table.text + remarks.joined() + (kernelObstacle.map { "\($0.printable)\n" } ?? "")
    }
}
