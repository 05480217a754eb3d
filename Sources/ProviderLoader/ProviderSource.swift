import Glibc

/// A source of a provider: a driver file with its library, or an entry point that is linked into the program.
struct ProviderSource: Sendable {
    enum Kind: Sendable {
        /// A built-in provider, or the reason why its entry point returned none.
        case builtIn(Result<Provider, LoadFailure>)
        /// A driver file and its library, which is not open yet.
        case driverFile(DriverDirectories.Entry, LibraryFile)
    }

    /// Name of the provider.
    let name: String
    let origin: Candidate.Origin
    let version: ProviderVersion?
    let kind: Kind

    /// A built-in provider. Its entry point is called, since only the provider knows its software devices.
    init(_ builtIn: BuiltInProvider) {
        name = builtIn.name
        origin = .builtIn
        let result = Result { () throws(LoadFailure) in try ProviderRegistry.shared.load(builtIn) }
        version = (try? result.get()).flatMap { ProviderVersion($0.version) }
        kind = .builtIn(result)
    }

    init(_ entry: DriverDirectories.Entry, trust: FileTrust) {
        name = entry.file.name
        origin = entry.origin
        version = entry.file.version
        kind = .driverFile(entry, LibraryFile(at: entry.library, trust: trust))
    }

    /// The driver file; nil for a built-in provider.
    var entry: DriverDirectories.Entry? {
        if case .driverFile(let entry, _) = kind { entry } else { nil }
    }

    /// The library; nil for a built-in provider, and for a library that is missing or refused.
    var library: FileIdentity? {
        if case .driverFile(_, .present(let file)) = kind { file } else { nil }
    }

    /// Whether it lists software devices: a built-in provider with `list_devices`, or a library whose driver file says so.
    var listsDevices: Bool {
        switch kind {
        // A driver file that is refused says nothing.
        case .driverFile(let entry, _): entry.file.listsDevices && entry.objection == nil
        case .builtIn(let result): (try? result.get().listsDevices) ?? false
        }
    }

    /// Whether the driver file forbids a fall-back (`critical yes`). A driver file that is refused forbids nothing.
    var isCritical: Bool {
        entry.map { $0.file.isCritical && $0.objection == nil } ?? false
    }

    /// The provider. Its library is opened at the first call in this process.
    func load(trust: FileTrust) throws(LoadFailure) -> Provider {
        switch kind {
        case .builtIn(let result):
            return try result.get()
        case .driverFile(let entry, _):
            guard let library else {
                throw LoadFailure(.missing, ENOENT, "there is no library \(entry.library)")
            }
            let provider = try ProviderRegistry.shared.load(library, trust: trust)
            guard provider.name == entry.file.name else {
                throw LoadFailure(
                    .name, EPROTO,
                    "\(library.path) has the name \(provider.name), its driver file the name \(entry.file.name)")
            }
            return provider
        }
    }

    /// The name of the source in messages.
    var label: String {
        "\(name) " + (entry.map { "of \($0.path)" } ?? "(built in)")
    }

    /// The place of the source in messages.
    private var place: String {
        switch origin {
        case .environment(let position): "directory \(position + 1) of RDMA_DRIVER_PATH"
        case .override: "the override directory"
        case .main: "the main directory"
        case .builtIn: "built in"
        }
    }

    /// The reason why this source ranks before `other`; nil where it does not. Built-in providers keep the order of
    /// `LoaderConfiguration.builtIn`.
    func precedence(over other: ProviderSource) -> String? {
        if origin != other.origin {
            return origin < other.origin ? "\(place) goes before \(other.place)" : nil
        }
        guard let own = entry, let others = other.entry else { return nil }
        // Version numbers of two vendors have nothing to do with each other.
        switch (own.file.vendor, others.file.vendor) {
        case (let first?, let second?) where first != second:
            return first.utf8.lexicographicallyPrecedes(second.utf8)
                ? "vendor \(first) goes before \(second), by name" : nil
        case (let first?, nil):
            return "vendor \(first) goes before a driver file without a vendor"
        case (nil, .some):
            return nil
        default: break
        }
        switch (version, other.version) {
        case (let higher?, let lower?) where higher != lower:
            return higher > lower ? "version \(higher) goes before \(lower)" : nil
        case (let higher?, nil):
            return "version \(higher) goes before a driver file without a version"
        case (nil, .some):
            return nil
        default:
            let names = (lastComponent(own.path), lastComponent(others.path))
            return names.0.utf8.lexicographicallyPrecedes(names.1.utf8)
                ? "file name \(names.0) goes before \(names.1)" : nil
        }
    }

    /// Whether it gives way to `other`, although it ranks before it: its driver file has a bound (`until`), and `other`, a
    /// provider of that name in a later directory, has that version or a higher one.
    func givesWay(to other: ProviderSource) -> Bool {
        guard let bound = entry?.file.until, let version = other.version else { return false }
        return origin < other.origin && name == other.name && version >= bound
    }

    /// A statement of the driver file that its library contradicts, as a sentence; nil where there is none. It is told,
    /// because the ranking and the user have read the driver file only.
    func contradiction(by provider: Provider) -> String? {
        guard let file = entry?.file else { return nil }
        var stated: [String] = []
        var found: [String] = []
        if let version = file.version, let own = ProviderVersion(provider.version), own != version {
            stated.append("version \(version)")
            found.append("version \(provider.version)")
        }
        if let vendor = file.vendor, !provider.vendor.isEmpty, provider.vendor != vendor {
            stated.append("vendor \(vendor)")
            found.append("vendor \(provider.vendor)")
        }
        return stated.isEmpty
            ? nil
            : "\(label): its driver file states \(stated.joined(separator: ", ")), its library "
                + found.joined(separator: ", ")
    }

    /// The candidate for one device, with its verdict.
    func candidate(_ verdict: Verdict) -> Candidate {
        let builtIn: Provider? = if case .builtIn(let result) = kind { try? result.get() } else { nil }
        return Candidate(
            provider: name, origin: origin, driverFile: entry?.path, library: entry?.library,
            version: entry?.file.version?.description ?? builtIn?.version,
            vendor: entry?.file.vendor ?? builtIn?.vendor,
            isCritical: entry?.file.isCritical ?? false, proof: entry?.file.proof, verdict: verdict)
    }
}
