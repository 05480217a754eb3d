import CProviderABI
import Glibc

/// The devices that providers list (`rdma_provider.list_devices`): the built-in ones, and the libraries whose driver
/// files have the line `list-devices yes`.
///
/// Of all sources with one provider name, one lists: the first in rank that succeeds.
struct SoftwareDevices {
    private(set) var devices: [DeviceDescription] = []
    /// Devices that are opened on request only (`RDMA_SOFTWARE_DEVICE_ON_REQUEST`).
    private(set) var onRequest: [DeviceDescription] = []
    private(set) var problems: [Problem] = []
    /// Every source that could list devices, with its verdict.
    private(set) var listings: [Listing] = []

    /// The owner of each name: "the kernel", or the label of the source that listed it.
    private var owners: [String: String]

    /// Asks the sources in `ranked`, which are in the order of their ranks. A device is passed over if its name belongs to
    /// one of `kernel` or was listed before.
    init(ranked: [ProviderSource], rules: Eligibility, trust: FileTrust, besides kernel: [DeviceDescription]) {
        owners = Dictionary(kernel.map { ($0.name, "a kernel device") }, uniquingKeysWith: { first, _ in first })
        var asked: Set<String> = []
        for source in ranked where source.listsDevices && asked.insert(source.name).inserted {
            list(by: source.name, ranked, rules, trust)
        }
    }

    /// Asks the sources of the provider `name`, one after the other, until one lists its devices.
    private mutating func list(
        by name: String, _ ranked: [ProviderSource], _ rules: Eligibility, _ trust: FileTrust
    ) {
        var selector = ProviderSelector(listersOf: name, ranked: ranked, rules: rules)
        var found: [String] = []
        do throws(LoaderError) {
            let (source, listed) = try selector.select { source throws(LoadFailure) in
                try source.load(trust: trust).softwareDevices()
            }
            found = listed.compactMap { add($0, by: source) }
            problems += selector.warnings.map {
                Problem(path: nil, message: $0, hint: "ask its vendor for a compatible version, or remove it")
            }
        } catch {
            // Without a failure all are masked, absent or excluded by RDMA_PROVIDER, as somebody wanted.
            if selector.hasFailed {
                problems.append(
                    Problem(
                        path: nil, message: error.message, hint: "`verbs doctor` looks for what stands in the way",
                        code: error.code))
            }
        }
        listings += selector.candidates.map {
            Listing(candidate: $0, devices: $0.verdict.outcome == .chosen ? found : [])
        }
    }

    /// Adds a device. Returns its name, or nil if it is passed over.
    private mutating func add(_ listed: rdma_software_device, by source: ProviderSource) -> String? {
        guard let device = DeviceDescription(listed, by: source.name), isDeviceName(device.name) else {
            report(
                source, printable(listed.name),
                isDeviceName(printable(listed.name))
                    ? "bytes that are not zero follow one of its texts; does list_devices use `stride`?"
                    : "that is not a device name")
            return nil
        }
        if let owner = owners[device.name] {
            report(source, device.name, "that name is taken, by \(owner)")
            return nil
        }
        owners[device.name] = source.label
        if listed.flags & RDMA_SOFTWARE_DEVICE_ON_REQUEST.rawValue == 0 {
            devices.append(device)
        } else {
            onRequest.append(device)
        }
        return device.name
    }

    private mutating func report(_ source: ProviderSource, _ name: String, _ reason: String) {
        problems.append(
            Problem(
                path: nil, message: "\(source.label) lists a device `\(name)`, which is passed over: \(reason)",
                hint: "report it to the vendor of \(source.name)"))
    }
}

/// A provider that lists software devices, or that could, with its verdict.
public struct Listing: Sendable, Hashable, Codable {
    /// The driver file or built-in provider. Its verdict is about the listing: chosen, if it lists.
    public var candidate: Candidate
    /// Names of the devices that it lists, without those that were passed over.
    public var devices: [String]
}

extension DeviceDescription {
    /// A software device as `provider` listed it. Nil where a text is not terminated, or bytes that are not zero follow it.
    fileprivate init?(_ listed: rdma_software_device, by provider: String) {
        guard let name = characters(listed.name), let interface = characters(listed.interface),
            let location = characters(listed.location)
        else { return nil }
        self.init(name: name, kind: .software)
        networkInterface = interface.isEmpty ? nil : interface
        interfaceIndex = listed.ifindex
        nodeType = Int32(bitPattern: listed.node_type)
        transportType = Int32(bitPattern: listed.transport_type)
        nodeGUID = UInt64(bigEndian: listed.node_guid)
        self.location = location.isEmpty ? nil : location
        cookie = listed.cookie
        listedBy = provider
    }
}

/// The text of an array of characters; nil unless only zeros follow it, one at least.
private func characters<T>(_ field: T) -> String? {
    withUnsafeBytes(of: field) { bytes in
        let text = bytes.prefix { $0 != 0 }
        guard text.count < bytes.count, bytes[text.count...].allSatisfy({ $0 == 0 }) else { return nil }
        return String(decoding: text, as: UTF8.self)
    }
}

/// The text of an array of characters for a message: without control characters.
private func printable<T>(_ field: T) -> String {
    let text = withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return String(text.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : Character($0) })
}
