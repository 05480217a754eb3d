import FoundationEssentials

/// A family of PCI functions that the kernel can make RDMA devices of.
struct AdapterFamily: Sendable {
    /// Such as `NVIDIA ConnectX or BlueField`.
    let name: String
    /// The PCI vendor.
    let vendor: UInt16
    /// The PCI device IDs.
    let devices: [ClosedRange<UInt16>]
    /// Class and subclass of the functions: an adapter may have further ones, for storage.
    let classes: Set<UInt16>
    /// The kernel module that the function is bound to.
    let driver: String
    /// The kernel module that makes an RDMA device of it; nil: the same one.
    let rdmaModule: String?

    /// Class 02, network controller: Ethernet, InfiniBand, fabric, other.
    private static let network: Set<UInt16> = [0x0200, 0x0207, 0x0208, 0x0280]

    /// The first that fits is the family of a function. The IDs are those of the kernel drivers.
    static let all = [
        AdapterFamily(
            name: "NVIDIA ConnectX-3", vendor: 0x15B3, devices: [0x1002...0x1010], classes: network,
            driver: "mlx4_core", rdmaModule: "mlx4_ib"),
        AdapterFamily(
            name: "NVIDIA ConnectX or BlueField", vendor: 0x15B3, devices: [0x1011...0x10FF, 0xA2D2...0xA2FF],
            classes: network, driver: "mlx5_core", rdmaModule: "mlx5_ib"),
        AdapterFamily(
            name: "Chelsio T4, T5 or T6", vendor: 0x1425, devices: [0x4400...0x44FF, 0x5400...0x54FF, 0x6400...0x64FF],
            classes: network, driver: "cxgb4", rdmaModule: "iw_cxgb4"),
        AdapterFamily(
            name: "Omni-Path 100", vendor: 0x8086, devices: [0x24F0...0x24F1], classes: network, driver: "hfi1",
            rdmaModule: nil),
        AdapterFamily(
            name: "Intel E810", vendor: 0x8086, devices: [0x1591...0x1593, 0x1599...0x159B], classes: network,
            driver: "ice", rdmaModule: "irdma"),
        AdapterFamily(
            name: "Broadcom NetXtreme-E 57500", vendor: 0x14E4, devices: [0x1750...0x1752], classes: network,
            driver: "bnxt_en", rdmaModule: "bnxt_re"),
        AdapterFamily(
            name: "Elastic Fabric Adapter", vendor: 0x1D0F, devices: [0xEFA0...0xEFA3], classes: network, driver: "efa",
            rdmaModule: nil),
    ]

    /// The modules, for modprobe(8).
    var modules: String { [driver, rdmaModule].compactMap { $0 }.joined(separator: " ") }

    func contains(vendor: UInt16, device: UInt16, class pciClass: UInt16) -> Bool {
        vendor == self.vendor && classes.contains(pciClass)
            && devices.contains { $0.contains(device) }
    }
}

extension SystemView {
    /// Checks that the PCI functions of known adapters are RDMA devices. Reports problems only: a machine may have none.
    func examineAdapters() -> [Finding] {
        let directory = sysfs + "/bus/pci/devices"
        return names(in: directory).compactMap { address in
            let path = "\(directory)/\(address)"
            guard let vendor = number(in: path + "/vendor").flatMap(UInt16.init(exactly:)),
                let device = number(in: path + "/device").flatMap(UInt16.init(exactly:)),
                // Class, subclass and programming interface.
                let pciClass = number(in: path + "/class").flatMap({ UInt16(exactly: $0 >> 8) }),
                let family = AdapterFamily.all.first(where: {
                    $0.contains(vendor: vendor, device: device, class: pciClass)
                })
            else { return nil }
            let id = Self.hexadecimal(vendor) + ":" + Self.hexadecimal(device)
            return examine(adapter: "PCI function \(address) (\(family.name), \(id))", of: family, path: path)
        }
    }

    private func examine(adapter: String, of family: AdapterFamily, path: String) -> Finding? {
        let target = try? FileManager.default.destinationOfSymbolicLink(atPath: root + path + "/driver")
        guard let driver = target.map({ String($0[($0.lastIndex(of: "/").map($0.index(after:)) ?? $0.startIndex)...]) })
        else {
            return .warning(
                .kernel, "\(adapter) has no kernel driver: it is no RDMA device",
                try: "load the modules on the host: modprobe -a \(family.modules); if they are loaded: dmesg tells why"
                    + " \(family.driver) did not accept it")
        }
        guard driver == family.driver else {
            return .note(
                .kernel, "\(adapter) is bound to \(driver), not to \(family.driver): it is no RDMA device",
                try: "nothing, if a virtual machine or DPDK uses it; else: driverctl unset-override "
                    + String(path[path.index(after: path.lastIndex(of: "/")!)...]))
        }
        // The kernel hides it from other network namespaces if devices are not shared.
        guard sharesDevices != false, names(in: path + "/infiniband").isEmpty else { return nil }
        return .note(
            .kernel, "\(adapter) is bound to \(driver), and is no RDMA device",
            try: "load the module on the host: modprobe \(family.rdmaModule ?? family.driver); or enable RDMA in the"
                + " function's firmware or with devlink(8)")
    }

    /// The number in a file of sysfs, such as `0x15b3`; nil if there is none.
    private func number(in file: String) -> UInt32? {
        let text = text(of: file)?.trimmingPrefix("0x").prefix { $0.isHexDigit }
        return text.flatMap { UInt32($0, radix: 16) }
    }

    /// Four hexadecimal digits.
    private static func hexadecimal(_ value: UInt16) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 4 - digits.count) + digits
    }
}
