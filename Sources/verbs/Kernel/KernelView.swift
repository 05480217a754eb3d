import RDMANetlink

/// What the kernel tells of its RDMA devices over netlink, at one moment. Without an RDMA kernel it is empty, and says
/// why in one sentence.
struct KernelView: Sendable {
    var devices: [RDMADevice] = []
    var links: [RDMALink] = []
    var system: RDMASystem?
    /// Why nothing, or not everything, is known.
    var obstacle: NetlinkError?

    static func current() -> KernelView {
        var view = KernelView()
        do throws(NetlinkError) {
            let kernel = try KernelRDMA()
            view.devices = try kernel.devices()
            for device in view.devices { view.links += try kernel.links(of: device) }
            view.system = try kernel.system()
        } catch {
            view.obstacle = error
        }
        return view
    }

    subscript(device name: String) -> RDMADevice? { devices.first { $0.name == name } }

    /// The network interface under a port.
    func interface(of device: String, port: Int) -> String? {
        links.first { $0.deviceName == device && $0.port == UInt32(port) }?.interfaceName
    }

    /// The network interfaces under a device's ports.
    func interfaces(of device: String) -> [String] {
        links.filter { $0.deviceName == device }.compactMap(\.interfaceName)
    }
}
