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
        try output.print(DevicesReport(devices: devices.map(DevicesReport.Entry.init)))
        if devices.isEmpty { throw ToolError.noDevices }
    }
}

/// What `verbs devices` prints: Documentation/schema/devices.json.
struct DevicesReport: Report {
    struct Entry: Encodable {
        var name: String
        /// `kernel` or `software`.
        var kind: String
        var transport: String
        var nodeType: String
        /// 16 hexadecimal digits in groups of four.
        var guid: String
        var interface: String?
        /// Who serves it; null: nobody.
        var provider: String?
        var warnings: [String]
        /// Why nobody serves it.
        var obstacle: String?

        init(_ device: Device) {
            name = device.name
            kind = device.details.kind.rawValue
            transport = device.transportType.description
            nodeType = device.nodeType.description
            guid = Identifiers.guid(device.guid)
            interface = device.details.networkInterface
            provider = device.provider
            warnings = device.warnings
            obstacle = device.obstacle?.sentence
        }
    }

    let schema = "verbs-devices-1"
    var devices: [Entry]

    var text: String {
        var table = Table(
            .left("device"), .left("provider"), .left("kind"), .left("transport"), .left("node"), .left("GUID"),
            .left("interface"))
        for device in devices {
            table.add(
                device.name, device.provider ?? "none", device.kind, device.transport, device.nodeType, device.guid,
                device.interface ?? "")
        }
        let remarks = devices.flatMap { device in
            (device.warnings + [device.obstacle].compactMap { $0 }).map { "\(device.name): \($0.printable)\n" }
        }
        return table.text + remarks.joined()
    }
}
