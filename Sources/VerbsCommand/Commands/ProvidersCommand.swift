import ArgumentParser
import ProviderLoader
import Verbs

struct ProvidersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "providers",
        abstract: "Show which provider serves each device, and why the others do not.",
        discussion: """
            Lists every candidate for every device: eligible providers in the order of their rank, then the others, \
            each with its driver file and the reason. Providers that list software devices, and skipped driver files, follow. \
            The libraries of selected and of listing providers are loaded, devices are not opened. Exit code 2 if there is no such device.
            """)

    @OptionGroup var choice: DeviceChoice
    @OptionGroup var output: OutputOptions

    func run() throws {
        let list = try DeviceList.current()
        let devices = try list.choosing(choice.device)
        try output.print(ProvidersReport(list.survey(of: devices)), about: devices)
    }
}

/// The output of `verbs providers`: Documentation/schema/providers.json.
struct ProvidersReport: Report {
    struct Entry: Encodable {
        var device: String
        var chosen: String?
        var candidates: [CandidateEntry]
        var warnings: [String]
        var error: ErrorEntry?
    }

    struct CandidateEntry: Encodable {
        var provider: String
        var outcome: String
        var rule: String
        var reason: String
        /// `environment`, `override`, `main` or `built-in`.
        var origin: String
        var driverFile: String?
        var library: String?
        var version: String?
        var vendor: String?
        var critical: Bool
        var proved: String?
    }

    struct ErrorEntry: Encodable {
        var message: String
        var hint: String
    }

    struct ProblemEntry: Encodable {
        var path: String?
        var line: Int?
        var message: String
        var hint: String
    }

    /// A provider that lists software devices, or could.
    struct ListingEntry: Encodable {
        var provider: String
        var outcome: String
        var rule: String
        var reason: String
        var origin: String
        var driverFile: String?
        var library: String?
        /// Names of the devices that it lists.
        var devices: [String]

        init(_ listing: Listing) {
            let candidate = CandidateEntry(listing.candidate)
            provider = candidate.provider
            outcome = candidate.outcome
            rule = candidate.rule
            reason = candidate.reason
            origin = candidate.origin
            driverFile = candidate.driverFile
            library = candidate.library
            devices = listing.devices
        }
    }

    struct LogEntry: Encodable {
        var provider: String
        var level: String
        var text: String
    }

    let schema = "verbs-providers-2"
    var devices: [Entry]
    var listings: [ListingEntry]
    var problems: [ProblemEntry]
    /// Warnings and errors that providers logged during the command.
    var messages: [LogEntry]

    init(_ survey: Survey) {
        devices = survey.entries.map { entry in
            Entry(
                device: entry.device.name, chosen: entry.chosen?.provider,
                candidates: entry.candidates.map(CandidateEntry.init), warnings: entry.warnings,
                error: entry.error.map { ErrorEntry(message: $0.message, hint: $0.hint) })
        }
        listings = survey.listings.map(ListingEntry.init)
        problems = survey.problems.map {
            ProblemEntry(path: $0.path, line: $0.line, message: $0.message, hint: $0.hint)
        }
        messages = survey.messages.map { LogEntry(provider: $0.provider, level: $0.level.name, text: $0.text) }
    }

    var text: String {
        var sections = devices.map { entry in
            var table = Table(
                .left(entry.device), .left("provider"), .left("version"), .left("driver file"), .left("reason"))
            for candidate in entry.candidates {
                table.add(
                    Self.words[candidate.outcome] ?? candidate.outcome, candidate.provider, candidate.version ?? "",
                    candidate.driverFile ?? candidate.origin, candidate.reason)
            }
            let warnings = entry.warnings.map { "warning: \($0.printable)\n" }
            let chosen = entry.candidates.first { $0.outcome == Verdict.Outcome.chosen.rawValue }
            let note =
                chosen?.proved == DriverFile.Proof.simulator.rawValue
                ? "note: \(chosen?.provider ?? "it") was proved on a simulated device, not on silicon\n  try: \(Self.wayBack)\n"
                : ""
            let error = entry.error.map { "error: \($0.message.printable)\n  try: \($0.hint.printable)\n" }
            return table.text + warnings.joined() + note + (error ?? "")
        }
        // Built-in providers always list.
        if listings.contains(where: { $0.driverFile != nil }) { sections.append(listingTable) }
        if !problems.isEmpty {
            sections.append(
                "skipped:\n"
                    + problems.map { problem in
                        let place = [problem.path, problem.line.map(String.init)].compactMap { $0 }
                        let text =
                            place.isEmpty ? problem.message : place.joined(separator: ":") + ": " + problem.message
                        return "  \(text.printable)\n"
                            + (problem.hint.isEmpty ? "" : "    try: \(problem.hint.printable)\n")
                    }.joined())
        }
        if !messages.isEmpty {
            sections.append(messages.map { "\($0.provider): \($0.level): \($0.text)".printable + "\n" }.joined())
        }
        return sections.joined(separator: "\n")
    }

    /// The providers that list software devices, with the reasons of those that do not.
    private var listingTable: String {
        var table = Table(
            .left("listing"), .left("provider"), .left("driver file"), .left("devices"), .left("reason"))
        for listing in listings {
            table.add(
                Self.words[listing.outcome] ?? listing.outcome, listing.provider, listing.driverFile ?? listing.origin,
                listing.devices.isEmpty ? "none" : listing.devices.joined(separator: ","), listing.reason)
        }
        return table.text
    }

    private static let words = ["standsBy": "standby"]

    /// How a device gets from a native provider back to that of the distribution.
    static let wayBack =
        "RDMA_PROVIDER=libibverbs goes back for one command; for all, remove the provider's package, or mask it: "
        + "rdma-driver(5)"
}

extension ProvidersReport.CandidateEntry {
    init(_ candidate: Candidate) {
        provider = candidate.provider
        outcome = candidate.verdict.outcome.rawValue
        rule = candidate.verdict.rule.rawValue
        reason = candidate.verdict.message
        origin =
            switch candidate.origin {
            case .environment: "environment"
            case .override: "override"
            case .main: "main"
            case .builtIn: "built-in"
            }
        driverFile = candidate.driverFile
        library = candidate.library
        version = candidate.version
        vendor = candidate.vendor
        critical = candidate.isCritical
        proved = candidate.proof?.rawValue
    }
}
