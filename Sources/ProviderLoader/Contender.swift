/// A provider that could stand for any device: a driver file, or one that is linked in.
struct Contender: Sendable {
    enum Source: Sendable {
        /// A built-in provider as it loaded.
        case builtIn(Result<LoadedProvider, LoadFailure>)
        /// A driver file and its library.
        case file(DriverDirectories.Entry, LibraryFile)
    }

    let provider: String
    let origin: Candidate.Origin
    let version: ProviderVersion?
    let source: Source

    init(_ builtIn: BuiltInProvider) {
        provider = builtIn.name
        origin = .builtIn
        let result = Result { () throws(LoadFailure) in try ProviderRegistry.shared.load(builtIn) }
        version = (try? result.get()).flatMap { ProviderVersion($0.version) }
        source = .builtIn(result)
    }

    init(_ entry: DriverDirectories.Entry, trust: FileTrust) {
        provider = entry.file.name
        origin = entry.origin
        version = entry.file.version
        source = .file(entry, LibraryFile(at: entry.library, trust: trust))
    }

    /// Its driver file, if it has one.
    var entry: DriverDirectories.Entry? {
        if case .file(let entry, _) = source { entry } else { nil }
    }

    /// Its library, if it has one that may be used.
    var library: FileIdentity? {
        if case .file(_, .present(let file)) = source { file } else { nil }
    }

    /// Whether its driver file, which must be believed for that, forbids a fall-back.
    var isCritical: Bool {
        entry.map { $0.file.isCritical && $0.objection == nil } ?? false
    }

    /// How a sentence calls it.
    var label: String {
        "\(provider) " + (entry.map { "of \($0.path)" } ?? "(built in)")
    }

    /// Where it comes from, in a sentence.
    var place: String {
        switch origin {
        case .environment(let position): "directory \(position + 1) of RDMA_DRIVER_PATH"
        case .override: "the override directory"
        case .main: "the main directory"
        case .builtIn: "built in"
        }
    }

    /// Why it goes before `other` in rank; nil where it does not. Built-in providers keep the order in which the
    /// program names them.
    func precedence(over other: Contender) -> String? {
        if origin != other.origin {
            return origin < other.origin ? "\(place) goes before \(other.place)" : nil
        }
        guard let own = entry, let others = other.entry else { return nil }
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

    /// The candidate that it is for a device, with what became of it.
    func candidate(_ verdict: Verdict) -> Candidate {
        let loaded: LoadedProvider? = if case .builtIn(let result) = source { try? result.get() } else { nil }
        return Candidate(
            provider: provider, origin: origin, driverFile: entry?.path, library: entry?.library,
            version: entry?.file.version?.description ?? loaded?.version,
            vendor: entry?.file.vendor ?? loaded?.vendor,
            isCritical: entry?.file.isCritical ?? false, proof: entry?.file.proof, verdict: verdict)
    }
}
