import ArgumentParser
import Verbs

/// The devices that a command shows.
struct DeviceChoice: ParsableArguments {
    @Argument(help: "The device; without it, every device.")
    var device: String?
}

extension DeviceList {
    /// The devices of this machine.
    static func current() throws(ToolError) -> DeviceList {
        do throws(VerbsError) {
            return try Device.list()
        } catch {
            throw ToolError(error)
        }
    }

    /// The device named `wanted`, except devices that are opened on request only; every device if `wanted` is nil.
    func choosing(_ wanted: String?) throws(ToolError) -> [Device] {
        guard let wanted else { return Array(self) }
        let chosen = filter { $0.name == wanted }
        if chosen.isEmpty { throw .noDevice(wanted, among: map(\.name)) }
        return chosen
    }
}

extension Device {
    /// The device named `name`, which may be a device that is opened by name only; without a name, every other device.
    static func chosen(_ name: String?) throws(ToolError) -> [Device] {
        let list = try DeviceList.current()
        guard let name else { return Array(list) }
        guard let device = list[name] else { throw .noDevice(name, among: (list + list.onRequest).map(\.name)) }
        return [device]
    }

    /// Opens the device and calls `body` with it. Converts errors to a `ToolError`.
    func withContext<Result>(_ body: (Context) throws(VerbsError) -> Result) throws(ToolError) -> Result {
        do throws(VerbsError) {
            return try body(try open())
        } catch {
            throw ToolError(error)
        }
    }
}

/// The identity of a device: members of the device's object in a JSON document.
struct DeviceIdentity: Encodable {
    var name: String
    /// `kernel` or `software`.
    var type: String
    var transport: String
    var nodeType: String
    /// 16 hexadecimal digits in groups of four.
    var guid: String
    /// Name of the kernel driver; nil: a software device, or not known.
    var driver: String?
    /// The protocol of its ports (`RDMA_NLDEV_ATTR_DEV_PROTOCOL`), such as `roce`; nil: not known.
    var `protocol`: String?
    /// The network interfaces of its ports, separated by commas; nil: none is known.
    var interface: String?
    /// Where a software device is, as its provider says; nil: it does not say.
    var location: String?

    init(_ device: Device, _ kernel: KernelView) {
        name = device.name
        type = device.details.kind.rawValue
        transport = device.transportType.description
        nodeType = device.nodeType.description
        guid = Identifiers.guid(device.guid)
        driver = device.details.driverName
        self.protocol = kernel[device: device.name]?.protocolName
        location = device.details.location
        let interfaces = kernel.interfaces(of: device.name).joined(separator: ",")
        interface = device.details.networkInterface ?? (interfaces.isEmpty ? nil : interfaces)
    }
}
