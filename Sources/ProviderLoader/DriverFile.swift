/// A driver file: the manifest of one provider library. `Documentation/providers.md` and rdma-driver(5) define
/// its syntax.
public struct DriverFile: Sendable, Hashable {
    /// On what a provider was proved.
    public enum Proof: String, Sendable, Hashable, Codable, CaseIterable {
        /// On the hardware.
        case silicon
        /// On a simulated device only.
        case simulator
    }

    /// One `match` line: which devices the provider is for.
    public enum Match: Sendable, Hashable {
        /// `match driver-id N`: those of the kernel driver with that number (`enum rdma_driver_id`).
        case driverID(UInt32)
        /// `match pci VVVV:DDDD`: those on a PCI function with these numbers; nil for any device of the vendor.
        case pci(vendor: UInt16, device: UInt16?)
        /// `match name GLOB`: those whose name fits.
        case name(NamePattern)
    }

    /// Name of the provider (`driver`): `[a-z0-9_-]+`, at most 63 bytes.
    public internal(set) var name: String
    /// Path of the library (`library`), absolute or relative; nil stands for `<name>.so`.
    public internal(set) var library: String?
    /// Version (`version`); a file without one ranks below those that have one.
    public internal(set) var version: ProviderVersion?
    /// Maker (`vendor`).
    public internal(set) var vendor: String?
    /// Lowest version of the provider ABI with which the library works (`provider-abi`).
    public internal(set) var providerABI: ABIVersion?
    /// ABI versions of the kernel driver that the library can serve (`kernel-abi`).
    public internal(set) var kernelABI: ClosedRange<UInt32>?
    /// The devices that it is for: any of these. Without one, those of the kernel driver of its name.
    public internal(set) var matches: [Match]
    /// No other provider may take its place when it fails (`critical yes`).
    public internal(set) var isCritical: Bool
    /// On what it was proved (`proved`).
    public internal(set) var proof: Proof?

    /// Largest file that is read, in bytes.
    public static let maximumSize = 65536
}

extension DriverFile: CustomStringConvertible {
    /// The file in its canonical form, which parses to the same value.
    public var description: String {
        var lines = ["driver \(name)"]
        if let library { lines.append("library \(library)") }
        if let version { lines.append("version \(version)") }
        if let vendor { lines.append("vendor \(vendor)") }
        if let providerABI { lines.append("provider-abi \(providerABI)") }
        if let kernelABI { lines.append("kernel-abi \(kernelABI.lowerBound)..\(kernelABI.upperBound)") }
        lines += matches.map { "match \($0)" }
        if isCritical { lines.append("critical yes") }
        if let proof { lines.append("proved \(proof.rawValue)") }
        return lines.map { $0 + "\n" }.joined()
    }
}

extension DriverFile.Match: CustomStringConvertible {
    /// What stands behind the keyword `match`.
    public var description: String {
        switch self {
        case .driverID(let number): "driver-id \(number)"
        case .pci(let vendor, let device): "pci \(hexadecimal(vendor)):\(device.map(hexadecimal) ?? "*")"
        case .name(let pattern): "name \(pattern)"
        }
    }
}

/// Four hexadecimal digits, as lspci(8) prints PCI numbers.
func hexadecimal(_ number: UInt16) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 4 - digits.count) + digits
}
