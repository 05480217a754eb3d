import ArgumentParser
import Verbs

/// Which devices a command shows.
struct DeviceChoice: ParsableArguments {
    @Argument(help: "The device; without it, all of them.")
    var device: String?
}

extension Array {
    /// The device of that name; without a name, all.
    func choosing(_ wanted: String?, by name: (Element) -> String) throws(ToolError) -> [Element] {
        guard let wanted else { return self }
        let chosen = filter { name($0) == wanted }
        if chosen.isEmpty { throw .noDevice(wanted, among: map(name)) }
        return chosen
    }
}

extension Device {
    /// Opens the device and asks it something; what fails is told as the user sees it.
    func ask<Answer>(_ body: (Context) throws(VerbsError) -> Answer) throws(ToolError) -> Answer {
        do throws(VerbsError) {
            return try body(try open())
        } catch {
            throw ToolError(error)
        }
    }
}

/// What names a device in a document: members of the object that stands for the device.
struct DeviceIdentity: Encodable {
    var name: String
    /// `kernel` or `software`.
    var kind: String
    var transport: String
    var nodeType: String
    /// 16 hexadecimal digits in groups of four.
    var guid: String
    /// Name of the kernel's driver; null: a software device, or not known.
    var driver: String?
    /// What its ports speak, in the kernel's words, such as `roce`; null: not known.
    var `protocol`: String?
    /// The network interfaces under it, with commas between them; null: none is known.
    var interface: String?

    init(_ device: Device, _ kernel: KernelView) {
        name = device.name
        kind = device.details.kind.rawValue
        transport = device.transportType.description
        nodeType = device.nodeType.description
        guid = Identifiers.guid(device.guid)
        driver = device.details.driverName
        self.protocol = kernel[device: device.name]?.protocolName
        let interfaces = kernel.interfaces(of: device.name).joined(separator: ",")
        interface = device.details.networkInterface ?? (interfaces.isEmpty ? nil : interfaces)
    }
}
