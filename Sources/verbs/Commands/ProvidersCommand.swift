import ArgumentParser
import ProviderLoader
import Verbs

struct ProvidersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "providers",
        abstract: "Show which provider serves each device, and why not the others.",
        discussion: """
            Lists every candidate for every device: those that may serve it in the order of their rank, then the others, \
            each with the driver file it comes from and the reason. Files that were passed over follow. Chosen libraries \
            are loaded, devices are not opened. Exit code 2 if there is no such device.
            """)

    @OptionGroup var choice: DeviceChoice
    @OptionGroup var output: OutputOptions

    func run() throws {
        let survey = ProviderLoader.standard.survey()
        let entries = try survey.entries.choosing(choice.device, by: \.device.name)
        try output.print(ProvidersReport(survey, entries: entries), about: entries)
    }
}

/// What `verbs providers` prints: Documentation/schema/providers.json.
struct ProvidersReport: Report {
    struct Entry: Encodable {
        var device: String
        var chosen: String?
        var candidates: [CandidateEntry]
        var warnings: [String]
        var error: Obstacle?
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

    struct Obstacle: Encodable {
        var sentence: String
        var hint: String
    }

    struct Fault: Encodable {
        var path: String?
        var line: Int?
        var sentence: String
        var hint: String
    }

    struct Message: Encodable {
        var provider: String
        var level: String
        var text: String
    }

    let schema = "verbs-providers-1"
    var devices: [Entry]
    var problems: [Fault]
    /// Warnings and errors that providers have logged while they were asked.
    var messages: [Message]

    init(_ survey: Survey, entries: [Survey.Entry]) {
        devices = entries.map { entry in
            Entry(
                device: entry.device.name, chosen: entry.chosen?.provider,
                candidates: entry.candidates.map(CandidateEntry.init), warnings: entry.warnings,
                error: entry.error.map { Obstacle(sentence: $0.sentence, hint: $0.hint) })
        }
        problems = survey.problems.map {
            Fault(path: $0.path, line: $0.line, sentence: $0.sentence, hint: $0.hint)
        }
        messages = survey.messages.map { Message(provider: $0.provider, level: $0.level.name, text: $0.text) }
    }

    var text: String {
        var sections = devices.map { entry in
            var table = Table(
                .left(entry.device), .left("provider"), .left("version"), .left("from"), .left("why"))
            for candidate in entry.candidates {
                table.add(
                    Self.words[candidate.outcome] ?? candidate.outcome, candidate.provider, candidate.version ?? "",
                    candidate.driverFile ?? candidate.origin, candidate.reason)
            }
            let warnings = entry.warnings.map { "warning: \($0.printable)\n" }
            let error = entry.error.map { "error: \($0.sentence.printable)\n  try: \($0.hint.printable)\n" }
            return table.text + warnings.joined() + (error ?? "")
        }
        if !problems.isEmpty {
            sections.append(
                "passed over:\n"
                    + problems.map { problem in
                        let place = [problem.path, problem.line.map(String.init)].compactMap { $0 }
                        let text =
                            place.isEmpty ? problem.sentence : place.joined(separator: ":") + ": " + problem.sentence
                        return "  \(text.printable)\n"
                            + (problem.hint.isEmpty ? "" : "    try: \(problem.hint.printable)\n")
                    }.joined())
        }
        if !messages.isEmpty {
            sections.append(messages.map { "\($0.provider): \($0.level): \($0.text)".printable + "\n" }.joined())
        }
        return sections.joined(separator: "\n")
    }

    private static let words = ["standsBy": "stands by"]
}

extension ProvidersReport.CandidateEntry {
    init(_ candidate: Candidate) {
        provider = candidate.provider
        outcome = candidate.verdict.outcome.rawValue
        rule = candidate.verdict.rule.rawValue
        reason = candidate.verdict.sentence
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
