import ArgumentParser
import CProviderABI
import Verbs

@main
struct VerbsTool: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verbs",
        abstract: "Show, test and measure RDMA devices.",
        discussion: """
            Tables go to standard output, what is said about them to standard error; with --json, standard output is \
            one JSON document. The exit code is 0 on success, 64 for a wrong command line; verbs(1) lists the others.
            """,
        version: "verbs \(RDMA_CORE_VERSION)",
        subcommands: [
            DevicesCommand.self, InfoCommand.self, ProvidersCommand.self, PingCommand.self, PerfCommand.self,
            DoctorCommand.self, WatchCommand.self, TopCommand.self, SimCommand.self,
        ])

    static func main() {
        Console.prepare()
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let error as ToolError {
            Console.note(error.text)
            exit(withError: ExitCode(error.exit.rawValue))
        } catch {
            exit(withError: error)
        }
    }
}

/// What every command takes.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print one JSON document instead of text, as Documentation/schema describes.")
    var json = false

    /// Prints a document in the form that was asked for.
    func print<Document: Report>(_ document: Document) throws {
        if json {
            try Console.output(json: document)
        } else {
            Console.output(document.text)
        }
    }

    /// Prints what was found out about those devices. If there is none, that is an error, after an empty document.
    func print<Document: Report>(_ document: Document, about devices: some Collection) throws {
        try print(document)
        if devices.isEmpty { throw ToolError.noDevices }
    }
}

/// What a command has found out: a JSON document, and text for people.
protocol Report: Encodable {
    /// Tables and lists, ending in a newline.
    var text: String { get }
}
