import RDMANetlink

/// A snapshot of the kernel's RDMA devices, queried over netlink. Empty, with `error` set, if the kernel has no RDMA
/// subsystem.
struct KernelView: Sendable {
    var devices: [RDMADevice] = []
    var links: [RDMALink] = []
    var system: RDMASystem?
    /// Why the snapshot is incomplete; nil: it is complete.
    var error: NetlinkError?

    static func current() -> KernelView {
        var view = KernelView()
        do throws(NetlinkError) {
            let kernel = try KernelRDMA()
            view.devices = try kernel.devices()
            for device in view.devices { view.links += try kernel.links(of: device) }
            view.system = try kernel.system()
        } catch {
            view.error = error
        }
        return view
    }

    subscript(device name: String) -> RDMADevice? { devices.first { $0.name == name } }

    /// The network interface of a port.
    func interface(of device: String, port: Int) -> String? {
        links.first { $0.deviceName == device && $0.port == UInt32(port) }?.interfaceName
    }

    /// The network interfaces of a device's ports.
    func interfaces(of device: String) -> [String] {
        links.filter { $0.deviceName == device }.compactMap(\.interfaceName)
    }
}
