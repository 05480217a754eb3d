import CProviderABI
import Glibc

/// Finds the devices, elects a provider for each, loads the elected one and opens devices with it.
///
/// It keeps no state of its own: every call looks afresh at the devices and the driver files. What is loaded is
/// loaded once in the process, and stays. All calls may come from any thread.
public final class ProviderLoader: Sendable {
    /// Where it looks.
    public let configuration: LoaderConfiguration

    /// A loader that looks where `configuration` says. As long as it lives, the configuration's log handler gets
    /// every message of every provider in this process.
    public init(configuration: LoaderConfiguration) {
        self.configuration = configuration
        if let handler = configuration.logHandler {
            ProcessLog.shared.add(ObjectIdentifier(self), handler)
        }
    }

    deinit {
        ProcessLog.shared.remove(ObjectIdentifier(self))
    }

    /// Every device with every candidate. Elected libraries are loaded and asked whether they can serve the
    /// device; losing ones are not touched, and no device is opened.
    public func survey() -> Survey {
        let snapshot = Snapshot(configuration)
        let entries = snapshot.devices.map { device in
            let record = DeviceRecord.of(device)
            var election = snapshot.election(for: device)
            var failure: LoaderError?
            do throws(LoaderError) {
                _ = try election.settle { contender throws(LoadFailure) in
                    try load(contender).provider.probe(device, record)
                }
            } catch {
                failure = error
            }
            return Survey.Entry(
                device: device, candidates: election.candidates, warnings: election.warnings, error: failure)
        }
        return Survey(entries: entries, problems: snapshot.problems, messages: ProcessLog.shared.kept)
    }

    /// Opens the device of that name with the provider that is elected for it.
    ///
    /// - Throws: `LoaderError` when there is no such device, when no provider can serve it, or when a critical or
    ///   asked-for one does not.
    public func open(_ deviceName: String) throws(LoaderError) -> OpenedDevice {
        let snapshot = Snapshot(configuration)
        guard let device = snapshot.devices.first(where: { $0.name == deviceName }) else {
            let names = snapshot.devices.map(\.name).joined(separator: ", ")
            throw LoaderError(
                device: deviceName, code: ENODEV, sentence: "there is no such device",
                hint: names.isEmpty ? "there is none at all; `verbs doctor` looks for the cause" : "there are: \(names)"
            )
        }
        let record = DeviceRecord.of(device)
        var election = snapshot.election(for: device)
        let (winner, (loaded, opened)) = try election.settle { contender throws(LoadFailure) in
            let loaded = try load(contender)
            try loaded.provider.probe(device, record)
            return (loaded, try loaded.provider.open(record))
        }
        let warnings = election.warnings + loaded.warnings
        for warning in warnings {
            ProcessLog.shared.record(LogMessage(level: .warning, provider: "loader", text: warning))
        }
        return OpenedDevice(
            description: device, device: record.pointer, context: opened.context, ops: opened.ops,
            flags: opened.flags, provider: loaded.description(of: winner), warnings: warnings,
            candidates: election.candidates)
    }

    /// The provider of a contender, opened if it lies in a library.
    private func load(_ contender: Contender) throws(LoadFailure) -> Loaded {
        switch contender.source {
        case .builtIn(let result):
            return Loaded(provider: try result.get(), library: nil)
        case .file(let entry, _):
            guard let file = contender.library else {
                throw LoadFailure(.missing, ENOENT, "there is no library \(entry.library)")
            }
            let library = try ProviderRegistry.shared.load(file, trust: FileTrust(configuration))
            guard library.provider.name == entry.file.name else {
                throw LoadFailure(
                    .name, EPROTO,
                    "\(file.path) calls itself \(library.provider.name), its driver file says \(entry.file.name)")
            }
            return Loaded(provider: library.provider, library: library)
        }
    }
}

/// A provider that is ready to open devices.
private struct Loaded {
    let provider: LoadedProvider
    /// Nil for a built-in one.
    let library: LoadedLibrary?

    /// What is odd about its library.
    var warnings: [String] {
        guard let library else { return [] }
        var warnings: [String] = []
        if library.wasMapped {
            warnings.append(
                "\(library.path) had been opened in this process before it was loaded as a provider: "
                    + "do not link programs with it")
        }
        warnings += ProviderRegistry.shared.copies(of: library).map { path in
            "\(path) is in this process beside \(library.path), which serves: "
                + "functions of the one must not be called on objects of the other"
        }
        return warnings
    }

    func description(of contender: Contender) -> ProviderDescription {
        ProviderDescription(
            name: provider.name, version: provider.version, vendor: provider.vendor, abi: provider.abi,
            driverFile: contender.entry?.path, library: library?.path, proof: contender.entry?.file.proof)
    }
}
