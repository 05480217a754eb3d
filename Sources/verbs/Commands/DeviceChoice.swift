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
    var interface: String?

    init(_ device: Device) {
        name = device.name
        kind = device.details.kind.rawValue
        transport = device.transportType.description
        nodeType = device.nodeType.description
        guid = Identifiers.guid(device.guid)
        interface = device.details.networkInterface
    }
}
