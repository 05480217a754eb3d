import Glibc

/// The election of the provider of one device.
struct Election {
    let device: DeviceDescription
    /// `RDMA_PROVIDER`.
    let asked: String?
    /// What a user should know although the device is served.
    private(set) var warnings: [String] = []

    /// All contenders in rank order, each with its verdict as soon as there is one.
    private var ballots: [(contender: Contender, verdict: Verdict?)]
    /// Whether the rules left the contender at that place in the race.
    private let isEligible: [Bool]

    /// `ranked` are all contenders in rank order.
    init(_ device: DeviceDescription, ranked: [Contender], rules: Eligibility) {
        self.device = device
        asked = rules.asked
        ballots = ranked.map { ($0, rules.verdict(on: $0, for: device)) }
        var libraries: [FileIdentity: Contender] = [:]
        for index in ballots.indices where ballots[index].verdict == nil {
            guard let library = ballots[index].contender.library else { continue }
            if let first = libraries[library] {
                ballots[index].verdict = Verdict(
                    .rejected, .duplicate, "its library is the same file as that of \(first.label), which ranks higher")
            } else {
                libraries[library] = ballots[index].contender
            }
        }
        isEligible = ballots.map { $0.verdict == nil }
    }

    /// Every candidate: first those that the rules left in the race, in rank order, then the others.
    var candidates: [Candidate] {
        let order = ballots.indices.filter { isEligible[$0] } + ballots.indices.filter { !isEligible[$0] }
        return order.map { index in
            ballots[index].contender.candidate(ballots[index].verdict ?? Verdict(.standsBy, .rank, "not tried"))
        }
    }

    /// Tries the contenders in rank order, and answers what `attempt` makes of the first that does not fail.
    ///
    /// - Throws: `LoaderError` when all have failed, or one whose place no other may take.
    mutating func settle<Outcome>(
        _ attempt: (Contender) throws(LoadFailure) -> Outcome
    ) throws(LoaderError) -> (winner: Contender, outcome: Outcome) {
        var failures: [(contender: Contender, code: Int32, verdict: Verdict)] = []
        for index in ballots.indices {
            let contender = ballots[index].contender
            let failure: (code: Int32, verdict: Verdict)
            if let verdict = ballots[index].verdict {
                guard let code = Election.refusalCode(verdict) else { continue }
                failure = (code, verdict)
            } else {
                do throws(LoadFailure) {
                    let outcome = try attempt(contender)
                    choose(index, after: failures.map(\.contender))
                    warnings += failures.map {
                        "\($0.contender.label) does not serve \(device.name): \($0.verdict.sentence); "
                            + "\(contender.label) does"
                    }
                    return (contender, outcome)
                } catch {
                    failure = (error.code, Verdict(.failed, error.rule, error.sentence))
                    ballots[index].verdict = failure.verdict
                }
            }
            failures.append((contender, failure.code, failure.verdict))
            if let reason = finality(of: contender) {
                standBy("not tried: \(reason)")
                throw error(
                    failure.code, "\(contender.label): \(failure.verdict.sentence) (\(reason))",
                    "repair it, or let another provider serve: see rdma-driver(5)")
            }
        }
        throw exhausted(failures)
    }

    /// The errno value of a contender that is for the device, but must not serve it; nil for any other verdict.
    private static func refusalCode(_ verdict: Verdict) -> Int32? {
        guard verdict.outcome == .rejected else { return nil }
        switch verdict.rule {
        case .ownership: return EPERM
        case .load: return ELIBACC
        case .providerABI, .kernelABI: return EPROTONOSUPPORT
        default: return nil
        }
    }

    /// Why nobody may take the place of the contender; nil where others may. A driver file that is not believed
    /// cannot forbid anything.
    private func finality(of contender: Contender) -> String? {
        guard contender.entry?.objection == nil else { return nil }
        if asked != nil { return "RDMA_PROVIDER asks for \(contender.provider)" }
        return contender.isCritical ? "\(contender.provider) is critical" : nil
    }

    private mutating func choose(_ winner: Int, after failed: [Contender]) {
        let contender = ballots[winner].contender
        let next = ballots[(winner + 1)...].first { $0.verdict == nil }?.contender
        var reason = next.map { "ranks before \($0.label): \(precedence(contender, $0))" } ?? "the only one that fits"
        if let last = failed.last {
            reason = "next in rank after \(last.label)"
        }
        ballots[winner].verdict = Verdict(.chosen, .rank, reason)
        for index in ballots.indices where ballots[index].verdict == nil {
            let sentence = "\(contender.label) ranks higher: \(precedence(contender, ballots[index].contender))"
            ballots[index].verdict = Verdict(.standsBy, .rank, sentence)
        }
    }

    private func precedence(_ winner: Contender, _ loser: Contender) -> String {
        winner.precedence(over: loser) ?? "the program names it first"
    }

    private mutating func standBy(_ sentence: String) {
        for index in ballots.indices where ballots[index].verdict == nil {
            ballots[index].verdict = Verdict(.standsBy, .rank, sentence)
        }
    }

    /// Nobody is left.
    private func exhausted(_ failures: [(contender: Contender, code: Int32, verdict: Verdict)]) -> LoaderError {
        if let asked, !ballots.contains(where: { $0.contender.provider == asked }) {
            let names = Set(ballots.map(\.contender.provider)).sorted().joined(separator: ", ")
            return error(
                ENOENT, "RDMA_PROVIDER asks for \(asked), and there is no such provider",
                "there are: \(names.isEmpty ? "none" : names)")
        }
        // What opening the device said tells more than why a library did not load.
        if let last = failures.last(where: { $0.verdict.rule == .open }) ?? failures.last {
            let reasons = failures.map { "\($0.contender.label): \($0.verdict.sentence)" }.joined(separator: "; ")
            return error(last.code, "no provider serves it: \(reasons)", "`verbs providers` shows all candidates")
        }
        let field = ballots.filter { asked == nil || $0.contender.provider == asked }
        let hidden = field.first { [.masked, .absent].contains($0.verdict?.outcome) }
        let near = hidden ?? (asked == nil ? nil : field.first)
        let reason = near.map { ": \($0.contender.label): \($0.verdict?.sentence ?? "")" } ?? ""
        return error(
            ENOENT, "no provider serves it\(reason)",
            "install the provider of this device, or see `verbs providers` for all candidates")
    }

    private func error(_ code: Int32, _ sentence: String, _ hint: String) -> LoaderError {
        LoaderError(device: device.name, code: code, sentence: sentence, hint: hint, candidates: candidates)
    }
}
