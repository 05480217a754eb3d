/// A device as it is known before a provider opens it (`struct rdma_device`, `struct ibv_device`).
public struct DeviceDescription: Sendable, Hashable, Codable {
    /// The kind of a device (`enum rdma_device_kind`).
    public enum Kind: String, Sendable, Hashable, Codable {
        /// A device of the kernel's RDMA subsystem, with a uverbs node (`RDMA_DEVICE_KERNEL`).
        case kernel
        /// A device in userspace, which a provider lists (`RDMA_DEVICE_SOFTWARE`).
        case software
    }

    /// The identifiers of a PCI function (pci(5), `lspci -n`).
    public struct PCIIdentifiers: Sendable, Hashable, Codable {
        /// Vendor ID, such as 0x15b3.
        public var vendor: UInt16
        /// Device ID.
        public var device: UInt16
        /// Subsystem vendor ID.
        public var subsystemVendor: UInt16
        /// Subsystem device ID.
        public var subsystemDevice: UInt16

        /// The four identifiers, as they stand in a PCI modalias.
        public init(vendor: UInt16, device: UInt16, subsystemVendor: UInt16 = 0, subsystemDevice: UInt16 = 0) {
            self.vendor = vendor
            self.device = device
            self.subsystemVendor = subsystemVendor
            self.subsystemDevice = subsystemDevice
        }
    }

    /// Name, such as `mlx5_0` or `soft0`: unique on the host, at most 63 bytes (`ibv_device.name`).
    public var name: String
    /// Kind: kernel or software.
    public var kind: Kind
    /// Node GUID in host byte order; 0 where it is not known (`ibv_get_device_guid`).
    public var nodeGUID: UInt64
    /// `enum ibv_node_type` of verbs.h: 1 channel adapter, 4 RNIC, 7 unspecified. Unknown values are kept.
    public var nodeType: Int32
    /// `enum ibv_transport_type` of verbs.h: 0 InfiniBand and RoCE, 1 iWARP. Unknown values are kept.
    public var transportType: Int32
    /// Driver ID (`enum rdma_driver_id` of `<rdma/ib_user_ioctl_verbs.h>`), as the kernel's netlink reports it; nil
    /// where it is not known. sysfs does not have it.
    public var driverID: UInt32?
    /// Name of the kernel driver that is bound to the hardware, such as `mlx5_core`; nil for a device without hardware.
    public var kernelDriver: String?
    /// ABI version of the kernel driver (`rdma_device.kernel_abi`); 0 for a software device.
    public var kernelABI: UInt32
    /// ABI version of uverbs (`rdma_device.uverbs_abi`); 0 for a software device.
    public var uverbsABI: UInt32
    /// PCI function of the device; nil for a device on no PCI bus.
    public var pci: PCIIdentifiers?
    /// Name of the uverbs node, such as `uverbs0` (`ibv_device.dev_name`); nil for a software device.
    public var uverbsName: String?
    /// Device number of the uverbs node as `dev_t` holds it; 0 for a software device.
    public var uverbsDevice: UInt64
    /// Path of the uverbs node in sysfs (`ibv_device.dev_path`); nil for a software device.
    public var uverbsPath: String?
    /// Path of the device in sysfs (`ibv_device.ibdev_path`); nil for a software device.
    public var sysfsPath: String?
    /// Inode number of the device in sysfs: another one if the device is registered again; 0 where it is not known, and
    /// for a software device.
    public var registration: UInt64
    /// Network interface of a software device that has one, such as `lo` (`rdma_device.interface`).
    public var networkInterface: String?
    /// Index of that interface (`rdma_device.ifindex`), or 0.
    public var interfaceIndex: UInt32
    /// Where a software device is, as its provider writes it, such as `pci 0000:3b:00.0` (`rdma_device.location`); nil where
    /// the provider does not say, and for a kernel device.
    public var location: String?
    /// A number by which the provider knows a software device (`rdma_device.cookie`); 0 for a kernel device.
    public var cookie: UInt64
    /// Name of the provider that lists a software device; nil for a kernel device.
    public var listedBy: String?

    /// A description with that name and kind; all other values are unknown.
    public init(name: String, kind: Kind) {
        self.name = name
        self.kind = kind
        nodeGUID = 0
        nodeType = -1
        transportType = -1
        kernelABI = 0
        uverbsABI = 0
        uverbsDevice = 0
        registration = 0
        interfaceIndex = 0
        cookie = 0
    }
}
