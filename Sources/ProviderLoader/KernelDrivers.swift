/// A driver of the kernel's RDMA subsystem. A driver file without a `match` line is for the devices of the kernel
/// driver that its `driver` line names.
///
/// The driver ID of the kernel decides where it is known (`DeviceDescription.driverID`). Else the name of the kernel
/// driver that is bound to the hardware decides, and for a driver without hardware the name of the device.
struct KernelDriver: Sendable {
    /// Name of the provider.
    let name: String
    /// `enum rdma_driver_id` of <rdma/ib_user_ioctl_verbs.h>.
    let id: UInt32
    /// Names under /sys/bus/*/drivers.
    let hardware: [String]

    private init(_ name: String, _ id: UInt32, _ hardware: String...) {
        self.name = name
        self.id = id
        self.hardware = hardware
    }

    /// Every driver that has an ID.
    static let all = [
        KernelDriver("mlx5", 1, "mlx5_core"),
        KernelDriver("mlx4", 2, "mlx4_core"),
        KernelDriver("cxgb3", 3, "cxgb3"),
        KernelDriver("cxgb4", 4, "cxgb4"),
        KernelDriver("mthca", 5, "ib_mthca"),
        KernelDriver("bnxt_re", 6, "bnxt_en"),
        KernelDriver("ocrdma", 7, "be2net"),
        KernelDriver("nes", 8, "iw_nes"),
        KernelDriver("irdma", 9, "ice", "i40e"),
        KernelDriver("vmw_pvrdma", 10, "vmw_pvrdma"),
        KernelDriver("qedr", 11, "qede"),
        KernelDriver("hns", 12, "hns3"),
        KernelDriver("usnic", 13, "usnic_verbs"),
        KernelDriver("rxe", 14),
        KernelDriver("hfi1", 15, "hfi1"),
        KernelDriver("qib", 16, "ib_qib"),
        KernelDriver("efa", 17, "efa"),
        KernelDriver("siw", 18),
        KernelDriver("erdma", 19, "erdma"),
        KernelDriver("mana", 20, "mana"),
    ]

    /// The driver ID of a kernel device, reported by the kernel or inferred; nil where neither is possible.
    static func id(of device: DeviceDescription) -> UInt32? {
        if let id = device.driverID { return id }
        return all.first { driver in
            if let hardware = device.kernelDriver { return driver.hardware.contains(hardware) }
            return driver.hardware.isEmpty && device.pci == nil && device.name.hasPrefix(driver.name)
        }?.id
    }
}

extension DeviceDescription {
    /// Name of the kernel driver, such as `rxe` or `mlx5`: by its driver ID where that is known, else inferred from the
    /// driver of the hardware or from the device's name; nil for a software device, and where nothing can be inferred.
    public var driverName: String? {
        guard kind == .kernel, let id = KernelDriver.id(of: self) else { return nil }
        return KernelDriver.all.first { $0.id == id }?.name ?? "number \(id)"
    }
}
