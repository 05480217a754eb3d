/// A driver file: the manifest of one provider library. rdma-driver(5) defines its syntax.
public struct DriverFile: Sendable, Hashable {
    /// The kind of device that a provider was proved on (`proved`).
    public enum Proof: String, Sendable, Hashable, Codable, CaseIterable {
        /// Hardware.
        case silicon
        /// A simulated device only.
        case simulator
    }

    /// One `match` line: devices that the provider is for.
    public enum Match: Sendable, Hashable {
        /// `match driver-id N`: devices of the kernel driver with that ID (`enum rdma_driver_id`).
        case driverID(UInt32)
        /// `match pci VVVV:DDDD`: devices on a PCI function with these IDs; nil: any device of the vendor.
        case pci(vendor: UInt16, device: UInt16?)
        /// `match name PATTERN`: devices whose names fit the pattern.
        case name(NamePattern)
    }

    /// Name of the provider (`driver`): `[a-z0-9_-]+`, at most 63 bytes.
    public internal(set) var name: String
    /// Path of the library (`library`), absolute or relative; nil stands for `<name>.so`.
    public internal(set) var library: String?
    /// Version (`version`); a file without one ranks below those that have one.
    public internal(set) var version: ProviderVersion?
    /// Vendor, for display (`vendor`).
    public internal(set) var vendor: String?
    /// Lowest version of the provider ABI that the library works with (`provider-abi`).
    public internal(set) var providerABI: ABIVersion?
    /// ABI versions of the kernel driver that the library serves (`kernel-abi`).
    public internal(set) var kernelABI: ClosedRange<UInt32>?
    /// The devices that the provider is for: those that fit one of these. If empty, the devices of the kernel driver of
    /// its name.
    public internal(set) var matches: [Match]
    /// Whether the library lists software devices (`list-devices yes`). It is then opened whenever devices are listed.
    public internal(set) var listsDevices = false
    /// Whether no other provider may serve when this one fails (`critical yes`).
    public internal(set) var isCritical: Bool
    /// The kind of device that it was proved on (`proved`).
    public internal(set) var proof: Proof?
    /// The version from which on a provider of the same name in a later directory ranks before this one (`until`).
    public internal(set) var until: ProviderVersion?

    /// Largest size of a driver file, in bytes.
    public static let maximumSize = 65536
}

extension DriverFile: CustomStringConvertible {
    /// The canonical text, which parses to the same value.
    public var description: String {
        var lines = ["driver \(name)"]
        if let library { lines.append("library \(library)") }
        if let version { lines.append("version \(version)") }
        if let vendor { lines.append("vendor \(vendor)") }
        if let providerABI { lines.append("provider-abi \(providerABI)") }
        if let kernelABI { lines.append("kernel-abi \(kernelABI.lowerBound)..\(kernelABI.upperBound)") }
        lines += matches.map { "match \($0)" }
        if listsDevices { lines.append("list-devices yes") }
        if isCritical { lines.append("critical yes") }
        if let proof { lines.append("proved \(proof.rawValue)") }
        if let until { lines.append("until \(until)") }
        return lines.map { $0 + "\n" }.joined()
    }
}

extension DriverFile.Match: CustomStringConvertible {
    /// The value behind the keyword `match`.
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
