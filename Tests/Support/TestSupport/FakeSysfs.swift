/// A directory tree like the RDMA part of sysfs, for `SYSFS_PATH` and `LoaderConfiguration.sysfsPath`.
public final class FakeSysfs: Sendable {
    /// The IDs of a PCI function.
    public struct PCI: Sendable {
        let vendor, device, subsystemVendor, subsystemDevice: UInt16

        /// Vendor and device ID, and those of the subsystem.
        public init(_ vendor: UInt16, _ device: UInt16, subsystemVendor: UInt16 = 0, subsystemDevice: UInt16 = 0) {
            self.vendor = vendor
            self.device = device
            self.subsystemVendor = subsystemVendor
            self.subsystemDevice = subsystemDevice
        }

        var modalias: String {
            "pci:v\(hex(vendor))d\(hex(device))sv\(hex(subsystemVendor))sd\(hex(subsystemDevice))bc02sc07i00"
        }

        private func hex(_ value: UInt16) -> String {
            let digits = String(value, radix: 16, uppercase: true)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }
    }

    private let directory: TemporaryDirectory

    /// The path for `SYSFS_PATH`.
    public var path: String { directory.path }

    /// A tree without devices.
    /// - Parameter uverbsABI: ABI version of uverbs itself: 6 since Linux 2.6.11.
    public init(uverbsABI: Int = 6) throws {
        directory = try TemporaryDirectory()
        try directory.write("\(uverbsABI)\n", to: "class/infiniband_verbs/abi_version")
        try directory.makeDirectory("class/infiniband")
    }

    /// Adds a device with its uverbs node `uverbs<index>`.
    /// - Parameters:
    ///   - name: Name of the device, such as `ctest0` or `mlx5_0`.
    ///   - index: Number of the uverbs node; its device number is 231:(192 + index).
    ///   - nodeGUID: Node GUID, in host byte order.
    ///   - nodeType: Contents of the file node_type: "1: CA", "4: RNIC".
    ///   - kernelABI: ABI version of the kernel driver.
    ///   - pci: The PCI function of the device; nil for a device without one, such as rxe.
    ///   - kernelDriver: Name of the kernel driver that is bound to the function.
    public func addDevice(
        _ name: String, index: Int = 0, nodeGUID: UInt64 = 0x0002_c903_0012_3456, nodeType: String = "1: CA",
        kernelABI: Int = 1, pci: PCI? = nil, kernelDriver: String? = nil
    ) throws {
        let verbs = "class/infiniband_verbs/uverbs\(index)"
        let device = "class/infiniband/\(name)"
        try directory.write("\(name)\n", to: "\(verbs)/ibdev")
        try directory.write("231:\(192 + index)\n", to: "\(verbs)/dev")
        try directory.write("\(kernelABI)\n", to: "\(verbs)/abi_version")
        try directory.write("\(nodeType)\n", to: "\(device)/node_type")
        try directory.write("\(guid(nodeGUID))\n", to: "\(device)/node_guid")
        try directory.makeDirectory("\(device)/ports/1")
        guard let pci else { return }
        let function = try directory.makeDirectory("devices/pci0000:00/0000:00:0\(index).0")
        try directory.write("\(pci.modalias)\n", to: "devices/pci0000:00/0000:00:0\(index).0/modalias")
        try directory.link("\(verbs)/device", to: function)
        try directory.link("\(device)/device", to: function)
        guard let kernelDriver else { return }
        let driver = try directory.makeDirectory("bus/pci/drivers/\(kernelDriver)")
        try directory.link("devices/pci0000:00/0000:00:0\(index).0/driver", to: driver)
    }

    private func guid(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        let padded = Array(String(repeating: "0", count: 16 - digits.count) + digits)
        return stride(from: 0, to: 16, by: 4).map { String(padded[$0..<$0 + 4]) }.joined(separator: ":")
    }
}
