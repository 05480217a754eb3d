import CIBVerbs
import CProviderABI
import ProviderLoader
import SystemPackage

/// An RDMA device of this host, as far as it is known before it is opened.
public struct Device: Sendable {
    /// What is known about the device.
    public let details: DeviceDescription
    /// Every provider that could serve it, and what became of each.
    public let candidates: [Candidate]
    /// What a user should know although the device is served.
    public let warnings: [String]
    /// Why nothing serves the device; nil where a provider is elected.
    public let obstacle: LoaderError?

    private let loader: ProviderLoader

    private init(_ entry: Survey.Entry, loader: ProviderLoader) {
        details = entry.device
        candidates = entry.candidates
        warnings = entry.warnings
        obstacle = entry.error
        self.loader = loader
    }

    /// The devices of this host: those of the kernel, then those in software.
    public static var all: [Device] { all(from: .standard) }

    /// The devices that a loader of one's own finds.
    public static func all(from loader: ProviderLoader) -> [Device] {
        loader.survey().entries.map { Device($0, loader: loader) }
    }

    /// The device of that name.
    ///
    /// - Throws: `ENODEV` when there is none.
    public static func named(_ name: String, from loader: ProviderLoader = .standard) throws(VerbsError) -> Device {
        let devices = all(from: loader)
        guard let device = devices.first(where: { $0.name == name }) else {
            let names = devices.map(\.name).joined(separator: ", ")
            throw VerbsError(
                .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: name),
                hint: names.isEmpty ? "this host has no RDMA device" : "there is no such device; there are: \(names)")
        }
        return device
    }

    /// Opens the first device that has an active port: hardware goes before software.
    ///
    /// - Throws: `ENODEV` when there is none, or what opening the only one answered.
    public static func openFirst(from loader: ProviderLoader = .standard) throws(VerbsError) -> Context {
        var failure: VerbsError?
        for device in all(from: loader) {
            do throws(VerbsError) {
                let context = try device.open()
                if try context.firstActivePort() != nil { return context }
            } catch {
                failure = failure ?? error
            }
        }
        throw failure
            ?? VerbsError(
                .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: ""),
                hint: "no device has an active port: `verbs devices` lists them, `verbs doctor` says what is missing")
    }

    /// Opens the device with its elected provider.
    ///
    /// - Throws: what the provider or the loader answered: `EPERM`, `EACCES` (permissions of /dev/infiniband),
    ///   `ENODEV` (gone), `ENOENT` (no provider serves it).
    public func open() throws(VerbsError) -> Context {
        do throws(LoaderError) {
            return Context(try loader.open(name), loader: loader)
        } catch {
            throw VerbsError(
                .openDevice, errno: Errno(rawValue: error.code), object: VerbsObject("device", device: name),
                hint: error.hint.isEmpty ? error.sentence : "\(error.sentence); \(error.hint)")
        }
    }

    /// Its name, such as `mlx5_0` or `soft0`: unique on the host.
    public var name: String { details.name }
    /// Its node GUID in host byte order; 0 where it is not known.
    public var guid: UInt64 { details.nodeGUID }
    /// What it is.
    public var nodeType: NodeType { NodeType(rawValue: details.nodeType) }
    /// The transport that it speaks.
    public var transportType: TransportType { TransportType(rawValue: details.transportType) }
    /// Whether it exists in userspace only.
    public var isSoftware: Bool { details.kind == .software }
    /// Name of the provider that serves it; nil when none does.
    public var provider: String? { candidates.first { $0.verdict.outcome == .chosen }?.provider }
}

extension Device: CustomStringConvertible {
    /// Its name.
    public var description: String { name }
}

extension ProviderLoader {
    /// The loader of this process: the directories and the environment that DESIGN names, and the providers
    /// that are linked into every program of this package.
    public static let standard = ProviderLoader(
        configuration: .standard(builtIn: [
            BuiltInProvider(name: "libibverbs", entry: rdma_provider_entry_libibverbs),
            BuiltInProvider(name: "soft", entry: rdma_provider_entry_soft),
        ]))
}
