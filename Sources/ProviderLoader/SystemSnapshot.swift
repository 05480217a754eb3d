import CProviderABI
import Glibc

/// The devices, driver files and built-in providers of the system at one moment.
///
/// `ProviderLoader.snapshot()` takes one and opens only libraries whose driver files say that they list software devices
/// (`list-devices yes` of rdma-driver(5)). Any other library is opened when the provider of a device is selected, by `select(for:)`, `survey(of:)` or `open(_:)`, and only if it is the candidate with the highest rank, or
/// if all candidates before it failed.
public final class SystemSnapshot: Sendable {
    /// The devices: those of the kernel by name (`mlx5_2` before `mlx5_10`), then the software devices in the order of the
    /// ranks of the providers that list them.
    public let devices: [DeviceDescription]
    /// Software devices that are opened on request only (`RDMA_SOFTWARE_DEVICE_ON_REQUEST` of rdma_provider.h).
    public let onRequest: [DeviceDescription]
    /// The providers that list software devices, or could, in the order of their ranks.
    public let listings: [Listing]
    /// Driver files, devices and settings that could not be used.
    public let problems: [Problem]
    /// The loader that took the snapshot.
    public let loader: ProviderLoader

    /// In the order of their ranks. The order is total: no two driver files of a directory have one name.
    private let ranked: [ProviderSource]
    private let rules: Eligibility
    private let trust: FileTrust

    init(_ loader: ProviderLoader) {
        self.loader = loader
        let configuration = loader.configuration
        let directories = DriverDirectories(configuration)
        let trust = FileTrust(configuration)
        self.trust = trust
        let builtIn = configuration.builtIn.map { ProviderSource($0) }
        let files = directories.entries.map { ProviderSource($0, trust: trust) }
        ranked = files.sorted { $0.precedence(over: $1) != nil } + builtIn
        rules = Eligibility(
            masks: directories.masks, asked: configuration.setting(.provider),
            kernelProviders: Set(builtIn.filter(\.servesKernelDevices).map(\.name)))

        let otherSysfs = configuration.setting(.sysfsPath)
        // The kernel's netlink does not know the devices of another sysfs.
        let kernel = KernelDevices(
            sysfs: otherSysfs ?? configuration.sysfsPath,
            driverIDs: otherSysfs == nil ? configuration.driverIDs : { [:] })
        let software = SoftwareDevices(ranked: ranked, rules: rules, trust: trust, besides: kernel.devices)
        devices = kernel.devices + software.devices
        onRequest = software.onRequest
        listings = software.listings
        problems =
            configuration.problems(withProviders: ranked.map(\.name)) + directories.problems + kernel.problems
            + software.problems
    }

    /// Selects the provider of the device as `open(_:)` does, but does not open the device: the library of the
    /// candidate with the highest rank is opened and asked (`probe_device`), and if it fails, that of the next.
    public func select(for device: DeviceDescription) -> ProviderSelection {
        var selector = ProviderSelector(device, ranked: ranked, rules: rules)
        var failure: LoaderError?
        var warnings: [String] = []
        do throws(LoaderError) {
            let (source, provider) = try selector.select { source throws(LoadFailure) in
                let provider = try source.load(trust: trust)
                try provider.probe(device)
                return provider
            }
            warnings += [source.contradiction(by: provider)].compactMap(\.self)
        } catch {
            failure = error
        }
        return ProviderSelection(
            device: device, candidates: selector.candidates, warnings: selector.warnings + warnings, error: failure)
    }

    /// Selects the provider of each of `devices`; nil: of all that are not opened on request only.
    public func survey(of devices: [DeviceDescription]? = nil) -> Survey {
        let entries = (devices ?? self.devices).map(select(for:))
        return Survey(entries: entries, listings: listings, problems: problems, messages: ProviderLoader.messages)
    }

    /// An extension of the provider that is selected for the device (`rdma_provider.query_extension`). Opens the library of
    /// the provider, but not the device. Nil where no provider serves it, or the provider does not have that version.
    public func queryExtension(_ name: String, version: UInt32, of device: DeviceDescription) -> UnsafeRawPointer? {
        var selector = ProviderSelector(device, ranked: ranked, rules: rules)
        let selected = try? selector.select { source throws(LoadFailure) in
            let provider = try source.load(trust: trust)
            try provider.probe(device)
            return provider
        }
        return selected?.1.queryExtension(name, version: version, of: device)
    }

    /// Opens the device of that name with its selected provider.
    ///
    /// - Parameter extensions: Names of extensions of the provider to prepare in the context
    ///   (`rdma_open_attr.extensions`). A provider ignores those it does not know.
    /// - Throws: `LoaderError` when there is no such device, when no provider can serve it, or when a provider fails
    ///   that is critical or that `RDMA_PROVIDER` names.
    public func open(_ deviceName: String, extensions: [String] = []) throws(LoaderError) -> OpenedDevice {
        guard let device = (devices + onRequest).first(where: { $0.name == deviceName }) else {
            let names = devices.map(\.name).joined(separator: ", ")
            throw LoaderError(
                device: deviceName, code: ENODEV, message: "there is no such device",
                hint: names.isEmpty ? "there is none at all; `verbs doctor` looks for the cause" : "there are: \(names)"
            )
        }
        var selector = ProviderSelector(device, ranked: ranked, rules: rules)
        let (source, (provider, context)) = try selector.select { source throws(LoadFailure) in
            let provider = try source.load(trust: trust)
            try provider.probe(device)
            return (provider, try provider.open(device, extensions: extensions))
        }
        let warnings =
            selector.warnings + [source.contradiction(by: provider)].compactMap(\.self)
            + ProviderRegistry.shared.warnings(about: provider)
        for warning in warnings {
            ProviderLoader.record(LogMessage(level: .warning, provider: "loader", text: warning))
        }
        return OpenedDevice(
            description: device, device: provider.record(of: device).pointer, context: context.context,
            ops: context.ops,
            flags: context.flags, server: provider, provider: ProviderDescription(provider, from: source),
            warnings: warnings,
            candidates: selector.candidates)
    }
}

extension LoaderConfiguration {
    /// Environment variables that are ignored or have no valid value.
    fileprivate func problems(withProviders providers: [String]) -> [Problem] {
        var problems: [Problem] = []
        if isPrivileged {
            for name in Setting.allCases where environment[name.rawValue] != nil {
                problems.append(
                    Problem(
                        path: nil, message: "\(name.rawValue) is ignored: this process runs with raised privileges",
                        hint: "set it up in /etc/ibverbs.d instead"))
            }
        }
        if let level = setting(.log), LogMessage.Level(name: level) == nil {
            problems.append(
                Problem(
                    path: nil, message: "RDMA_LOG cannot be `\(level)`",
                    hint: "set it to error, warning, info or debug"))
        }
        if let asked = setting(.provider), !providers.contains(asked) {
            let names = Set(providers).sorted().joined(separator: ", ")
            problems.append(
                Problem(
                    path: nil, message: "RDMA_PROVIDER names `\(asked)`, and there is no such provider",
                    hint: "there are: \(names.isEmpty ? "none" : names)"))
        }
        return problems
    }
}

extension ProviderSource {
    /// A built-in provider that lists no devices is for those of the kernel.
    fileprivate var servesKernelDevices: Bool {
        guard case .builtIn(.success) = kind else { return false }
        return !listsDevices
    }
}
