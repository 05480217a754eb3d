/// A device, as far as it is known before a provider opens it.
public struct DeviceDescription: Sendable, Hashable, Codable {
    /// Where a device lives.
    public enum Kind: String, Sendable, Hashable, Codable {
        /// In the kernel's RDMA subsystem; it has a uverbs node.
        case kernel
        /// In userspace: a built-in provider lists it.
        case software
    }

    /// The numbers by which a PCI function names its maker and model.
    public struct PCIIdentifiers: Sendable, Hashable, Codable {
        /// Vendor, such as 0x15b3.
        public var vendor: UInt16
        /// Device.
        public var device: UInt16
        /// Vendor of the board.
        public var subsystemVendor: UInt16
        /// Board.
        public var subsystemDevice: UInt16

        /// The four numbers of a PCI modalias.
        public init(vendor: UInt16, device: UInt16, subsystemVendor: UInt16 = 0, subsystemDevice: UInt16 = 0) {
            self.vendor = vendor
            self.device = device
            self.subsystemVendor = subsystemVendor
            self.subsystemDevice = subsystemDevice
        }
    }

    /// Name of the device, such as `mlx5_0` or `soft0`: unique on the host, at most 63 bytes.
    public var name: String
    /// Where it lives.
    public var kind: Kind
    /// Node GUID in host byte order; 0 where it is not known.
    public var nodeGUID: UInt64
    /// `enum ibv_node_type` of verbs.h: 1 channel adapter, 4 RNIC, 7 unspecified; open.
    public var nodeType: Int32
    /// `enum ibv_transport_type` of verbs.h: 0 InfiniBand and RoCE, 1 iWARP; open.
    public var transportType: Int32
    /// The kernel's number for the driver (`enum rdma_driver_id` of `<rdma/ib_user_ioctl_verbs.h>`), where it
    /// is known: sysfs does not tell it.
    public var driverID: UInt32?
    /// Name of the kernel driver that is bound to the hardware, such as `mlx5_core`; nil where there is none.
    public var kernelDriver: String?
    /// ABI version of the kernel driver; 0 for a software device.
    public var kernelABI: UInt32
    /// ABI version of uverbs itself; 0 for a software device.
    public var uverbsABI: UInt32
    /// The PCI function behind the device; nil where there is none.
    public var pci: PCIIdentifiers?
    /// Name of the uverbs node, such as `uverbs0`; nil for a software device.
    public var uverbsName: String?
    /// Device number of the uverbs node as `dev_t` holds it; 0 for a software device.
    public var uverbsDevice: UInt64
    /// Path of the uverbs node in sysfs; nil for a software device.
    public var uverbsPath: String?
    /// Path of the device in sysfs; nil for a software device.
    public var sysfsPath: String?
    /// Network interface under a software device, such as `lo`.
    public var networkInterface: String?
    /// Index of that interface, or 0.
    public var interfaceIndex: UInt32
    /// Name of the built-in provider that lists a software device; nil for a kernel device.
    public var listedBy: String?

    /// A description with nothing but its name and kind; the rest is set afterwards.
    public init(name: String, kind: Kind) {
        self.name = name
        self.kind = kind
        nodeGUID = 0
        nodeType = -1
        transportType = -1
        kernelABI = 0
        uverbsABI = 0
        uverbsDevice = 0
        interfaceIndex = 0
    }
}
