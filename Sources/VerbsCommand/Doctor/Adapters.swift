import FoundationEssentials

/// A family of PCI functions that the kernel can make RDMA devices of.
struct AdapterFamily: Sendable {
    /// Such as `Omni-Path 100`.
    let name: String
    /// The PCI vendor.
    let vendor: UInt16
    /// Ranges of PCI device IDs.
    let devices: [ClosedRange<UInt16>]
    /// Class and subclass of the functions: an adapter may have further ones, for storage.
    let classes: Set<UInt16>
    /// The kernel module that the function is bound to.
    let driver: String
    /// The kernel module that makes an RDMA device of it; nil: the same one.
    let rdmaModule: String?

    /// Class 02, network controller: Ethernet, InfiniBand, fabric, other.
    private static let network: Set<UInt16> = [0x0200, 0x0207, 0x0208, 0x0280]

    /// The first that fits is the family of a function. The ranges contain IDs of the kernel drivers' device tables, of
    /// virtual functions too, and unassigned ones between them. Adapters that are missing here are not reported.
    static let all = [
        AdapterFamily(
            name: "NVIDIA ConnectX-3 or its predecessors", vendor: 0x15B3, devices: [0x1002...0x1010], classes: network,
            driver: "mlx4_core", rdmaModule: "mlx4_ib"),
        AdapterFamily(
            name: "NVIDIA Connect-IB, ConnectX-4 or later, or BlueField", vendor: 0x15B3,
            devices: [0x1011...0x10FF, 0xA2D2...0xA2FF], classes: network, driver: "mlx5_core", rdmaModule: "mlx5_ib"),
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

/// A PCI function of a known adapter.
private struct AdapterFunction {
    /// Such as `0000:3b:00.0`.
    let address: String
    /// PCI vendor and device, such as `15b3:1019`.
    let id: String
    let family: AdapterFamily
    /// The kernel module that it is bound to.
    let driver: String?
    /// An SR-IOV virtual function.
    let isVirtual: Bool
    /// Whether the kernel shows an RDMA device of it.
    let isDevice: Bool

    /// The adapter: the address without the number of the function.
    var adapter: Substring { address[..<(address.lastIndex(of: ".") ?? address.endIndex)] }
}

extension SystemView {
    /// Checks that the PCI functions of known adapters are RDMA devices. Reports problems only: a machine may have none.
    func examineAdapters() -> [Finding] {
        let functions = names(in: sysfs + "/bus/pci/devices").compactMap(adapterFunction)
        // With RoCE LAG, one RDMA device has the ports of several functions.
        let adaptersWithDevice = Set(functions.filter(\.isDevice).map(\.adapter))
        var findings = functions.filter { !$0.isVirtual && !$0.isDevice }
            .compactMap { examine($0, hasSibling: adaptersWithDevice.contains($0.adapter)) }
        for family in AdapterFamily.all {
            let unused = functions.filter {
                $0.isVirtual && $0.driver != family.driver && $0.family.name == family.name
            }
            guard let first = unused.first else { continue }
            findings.append(
                .note(
                    .kernel,
                    "SR-IOV virtual functions (\(family.name)) that are not bound to \(family.driver), and are no"
                        + " RDMA devices: \(unused.count), from \(first.address)",
                    try: "nothing, if virtual machines or DPDK use them; else: echo ADDRESS >"
                        + " \(sysfs)/bus/pci/drivers/\(family.driver)/bind"))
        }
        return findings
    }

    /// The PCI function of an address; nil if it is not one of a known adapter.
    private func adapterFunction(_ address: String) -> AdapterFunction? {
        let path = "\(sysfs)/bus/pci/devices/\(address)"
        guard let vendor = number(in: path + "/vendor").flatMap(UInt16.init(exactly:)),
            let device = number(in: path + "/device").flatMap(UInt16.init(exactly:)),
            // Class, subclass and programming interface.
            let pciClass = number(in: path + "/class").flatMap({ UInt16(exactly: $0 >> 8) }),
            let family = AdapterFamily.all.first(where: {
                $0.contains(vendor: vendor, device: device, class: pciClass)
            })
        else { return nil }
        let target = try? FileManager.default.destinationOfSymbolicLink(atPath: root + path + "/driver")
        return AdapterFunction(
            address: address, id: Self.hexadecimal(vendor) + ":" + Self.hexadecimal(device), family: family,
            driver: target.map { String($0[($0.lastIndex(of: "/").map($0.index(after:)) ?? $0.startIndex)...]) },
            isVirtual: exists(path + "/physfn"), isDevice: !names(in: path + "/infiniband").isEmpty)
    }

    /// The finding about a physical function that is no RDMA device. `hasSibling`: another function of its adapter is one.
    private func examine(_ function: AdapterFunction, hasSibling: Bool) -> Finding? {
        let family = function.family
        let adapter = "PCI function \(function.address) (\(family.name), \(function.id))"
        guard let driver = function.driver else {
            let hint =
                "load the modules on the host: modprobe -a \(family.modules); if they are loaded: dmesg tells why"
                + " \(family.driver) did not accept it"
            let message = "\(adapter) has no kernel driver: it is no RDMA device"
            return hasSibling ? .note(.kernel, message, try: hint) : .warning(.kernel, message, try: hint)
        }
        guard driver == family.driver else {
            return .note(
                .kernel, "\(adapter) is bound to \(driver), not to \(family.driver): it is no RDMA device",
                try: "nothing, if a virtual machine or DPDK uses it; else: driverctl unset-override \(function.address)"
            )
        }
        // The kernel hides it from other network namespaces if devices are not shared.
        guard sharesDevices != false, !hasSibling else { return nil }
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
