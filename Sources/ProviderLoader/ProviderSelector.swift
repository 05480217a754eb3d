import Glibc

/// Selects the provider of one device, or the source that lists the devices of a provider: ranks the sources by the rules,
/// and tries them in the order of their ranks.
struct ProviderSelector {
    /// What a source is selected for.
    private enum Task {
        /// To serve the device of that name.
        case serve(String)
        /// To list the software devices of the provider of that name.
        case list(String)

        /// Behind "does not".
        var phrase: String {
            switch self {
            case .serve(let device): "serve \(device)"
            case .list(let provider): "list the devices of \(provider)"
            }
        }

        /// The beginning of the error when no source is left.
        var failure: String {
            switch self {
            case .serve: "no provider serves it"
            case .list(let provider): "the devices of \(provider) are not listed"
            }
        }

        /// The device that an error names; empty where there is none.
        var device: String { if case .serve(let device) = self { device } else { "" } }
    }

    private let task: Task
    /// The value of `RDMA_PROVIDER`.
    let asked: String?
    /// Fall-backs that a user should know of although the device is served.
    private(set) var warnings: [String] = []

    /// All sources in the order of their ranks, each with its verdict as soon as there is one.
    private var ranking: [(source: ProviderSource, verdict: Verdict?)]
    /// Whether the rules admit the source at that position of the ranking.
    private let isEligible: [Bool]

    /// - Parameter ranked: All sources in the order of their ranks.
    init(_ device: DeviceDescription, ranked: [ProviderSource], rules: Eligibility) {
        self.init(
            .serve(device.name), rules.asked, ranked.map { ($0, rules.verdict(on: $0, for: device)) })
    }

    /// For the sources that list the software devices of the provider `name`.
    init(listersOf name: String, ranked: [ProviderSource], rules: Eligibility) {
        let listers = ranked.filter { $0.name == name && $0.listsDevices }
        self.init(.list(name), rules.asked, listers.map { ($0, rules.verdict(onLister: $0)) })
    }

    private init(_ task: Task, _ asked: String?, _ verdicts: [(source: ProviderSource, verdict: Verdict?)]) {
        self.task = task
        self.asked = asked
        ranking = ProviderSelector.givingWay(verdicts)
        var libraries: [FileIdentity: ProviderSource] = [:]
        for index in ranking.indices where ranking[index].verdict == nil {
            guard let library = ranking[index].source.library else { continue }
            if let first = libraries[library] {
                ranking[index].verdict = Verdict(
                    .rejected, .duplicate, "its library is the same file as that of \(first.label), which ranks higher")
            } else {
                libraries[library] = ranking[index].source
            }
        }
        isEligible = ranking.map { $0.verdict == nil }
    }

    /// Moves each source with a bound (`until`) behind the last one that it gives way to, so that it still serves if that
    /// one fails.
    private static func givingWay(
        _ verdicts: [(source: ProviderSource, verdict: Verdict?)]
    ) -> [(source: ProviderSource, verdict: Verdict?)] {
        var ranking = verdicts
        for index in ranking.indices.reversed() where ranking[index].verdict == nil {
            let source = ranking[index].source
            let last = ranking.indices.last { later in
                later > index && ranking[later].verdict == nil && source.givesWay(to: ranking[later].source)
            }
            guard let last else { continue }
            ranking.insert(ranking[index], at: last + 1)
            ranking.remove(at: index)
        }
        return ranking
    }

    /// Every candidate: first those that the rules admit, in the order of their ranks, then the others.
    var candidates: [Candidate] {
        let order = ranking.indices.filter { isEligible[$0] } + ranking.indices.filter { !isEligible[$0] }
        return order.map { index in
            ranking[index].source.candidate(ranking[index].verdict ?? Verdict(.standsBy, .rank, "not tried"))
        }
    }

    /// Whether a source was tried or refused. Masked and absent ones are neither.
    var hasFailed: Bool {
        ranking.contains { entry in
            entry.verdict.map { $0.outcome == .failed || ProviderSelector.refusalCode($0) != nil } ?? false
        }
    }

    /// Tries the sources in the order of their ranks, and returns the result of the first attempt that does not fail.
    ///
    /// - Throws: `LoaderError` when all attempts failed, or one that forbids a fall-back.
    mutating func select<Outcome>(
        _ attempt: (ProviderSource) throws(LoadFailure) -> Outcome
    ) throws(LoaderError) -> (source: ProviderSource, outcome: Outcome) {
        var failures: [(source: ProviderSource, code: Int32, verdict: Verdict)] = []
        for index in ranking.indices {
            let source = ranking[index].source
            let failure: (code: Int32, verdict: Verdict)
            if let verdict = ranking[index].verdict {
                guard let code = ProviderSelector.refusalCode(verdict) else { continue }
                failure = (code, verdict)
            } else {
                do throws(LoadFailure) {
                    let outcome = try attempt(source)
                    choose(index, after: failures.map(\.source))
                    warnings += failures.map {
                        "\($0.source.label) does not \(task.phrase): \($0.verdict.message); "
                            + "\(source.label) does"
                    }
                    return (source, outcome)
                } catch {
                    failure = (error.code, Verdict(.failed, error.rule, error.message))
                    ranking[index].verdict = failure.verdict
                }
            }
            failures.append((source, failure.code, failure.verdict))
            if let reason = finality(of: source) {
                standBy("not tried: \(reason)")
                throw error(
                    failure.code, "\(source.label): \(failure.verdict.message) (\(reason))",
                    "repair it, or let another provider serve: see rdma-driver(5)")
            }
        }
        throw exhausted(failures)
    }

    /// The errno value of a source that is for the device but that a rule refuses; nil for any other verdict.
    private static func refusalCode(_ verdict: Verdict) -> Int32? {
        guard verdict.outcome == .rejected else { return nil }
        switch verdict.rule {
        case .ownership: return EPERM
        case .load: return ELIBACC
        case .providerABI, .kernelABI: return EPROTONOSUPPORT
        default: return nil
        }
    }

    /// The reason why no other provider may serve when this one fails; nil where others may.
    private func finality(of source: ProviderSource) -> String? {
        guard source.entry?.objection == nil else { return nil }
        if asked != nil { return "RDMA_PROVIDER names \(source.name)" }
        return source.isCritical ? "\(source.name) is critical" : nil
    }

    private mutating func choose(_ chosen: Int, after failed: [ProviderSource]) {
        let source = ranking[chosen].source
        let next = ranking[(chosen + 1)...].first { $0.verdict == nil }?.source
        var reason = next.map { "ranks before \($0.label): \(precedence(source, $0))" } ?? "the only one that fits"
        if let last = failed.last {
            reason = "next in rank after \(last.label)"
        }
        ranking[chosen].verdict = Verdict(.chosen, .rank, reason)
        for index in ranking.indices where ranking[index].verdict == nil {
            let message = "\(source.label) ranks higher: \(precedence(source, ranking[index].source))"
            ranking[index].verdict = Verdict(.standsBy, .rank, message)
        }
        if case .serve = task { warnings += surprises(chosen) }
    }

    private func precedence(_ higher: ProviderSource, _ lower: ProviderSource) -> String {
        if lower.givesWay(to: higher), let bound = lower.entry?.file.until {
            return "\(lower.label) gives way to version \(bound) and later ones (`until`)"
        }
        return higher.precedence(over: lower) ?? "the program names it first"
    }

    /// What the driver files of replacements say, and the user may not expect although a provider serves: the library of
    /// one that ranks before `chosen` is missing, or another vendor has one in the same directory.
    private func surprises(_ chosen: Int) -> [String] {
        let source = ranking[chosen].source
        let missing = ranking[..<chosen].filter { $0.verdict?.rule == .missing && $0.source.origin < .main }.map {
            "\($0.source.label) has no library: \($0.verdict?.message ?? ""); \(source.label) serves. If its package was "
                + "removed, purge it or delete the file; if the library has moved, correct its `library` line"
        }
        guard let vendor = source.entry?.file.vendor else { return missing }
        let rivals = ranking[(chosen + 1)...].filter {
            $0.verdict?.outcome == .standsBy && $0.source.origin == source.origin
                && $0.source.entry?.file.vendor.map { $0 != vendor } ?? false
        }
        return missing
            + rivals.map {
                "\(source.label) and \($0.source.label) are of two vendors, whose versions cannot be compared; the first "
                    + "serves, by the name of its vendor. Remove the package of the other one"
            }
    }

    private mutating func standBy(_ message: String) {
        for index in ranking.indices where ranking[index].verdict == nil {
            ranking[index].verdict = Verdict(.standsBy, .rank, message)
        }
    }

    /// The error when no source is left.
    private func exhausted(_ failures: [(source: ProviderSource, code: Int32, verdict: Verdict)]) -> LoaderError {
        if let asked, !ranking.contains(where: { $0.source.name == asked }) {
            let names = Set(ranking.map(\.source.name)).sorted().joined(separator: ", ")
            return error(
                ENOENT, "RDMA_PROVIDER names \(asked), and there is no such provider",
                "there are: \(names.isEmpty ? "none" : names)")
        }
        // The error of open_device tells more than why a library did not load.
        if let last = failures.last(where: { $0.verdict.rule == .open }) ?? failures.last {
            let reasons = failures.map { "\($0.source.label): \($0.verdict.message)" }.joined(separator: "; ")
            return error(last.code, "\(task.failure): \(reasons)", "`verbs providers` shows all candidates")
        }
        let possible = ranking.filter { asked == nil || $0.source.name == asked }
        let hidden = possible.first { [.masked, .absent].contains($0.verdict?.outcome) }
        let nearest = hidden ?? (asked == nil ? nil : possible.first)
        let reason = nearest.map { ": \($0.source.label): \($0.verdict?.message ?? "")" } ?? ""
        return error(
            ENOENT, "\(task.failure)\(reason)",
            "install the provider of this device, or see `verbs providers` for all candidates")
    }

    private func error(_ code: Int32, _ message: String, _ hint: String) -> LoaderError {
        LoaderError(device: task.device, code: code, message: message, hint: hint, candidates: candidates)
    }
}
