import ArgumentParser
import CLinux
import CProviderABI
import CProviderCore
import Verbs

@main
struct VerbsTool: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verbs",
        abstract: "Show, test and measure RDMA devices.",
        discussion: """
            Data goes to standard output, messages and errors to standard error. With --json, standard output is \
            one JSON document. The exit code is 0 on success and 64 for a wrong command line; verbs(1) lists the others.
            """,
        version: "verbs \(RDMA_CORE_VERSION)",
        subcommands: [
            DevicesCommand.self, InfoCommand.self, ProvidersCommand.self, PingCommand.self, PerfCommand.self,
            PlotCommand.self, DoctorCommand.self, WatchCommand.self, TopCommand.self, RunCommand.self, SimCommand.self,
        ])

    static func main() {
        Console.prepare()
        do {
            var command = try parseAsRoot(programArguments)
            try command.run()
        } catch let error as ToolError {
            Console.note(error.text)
            Console.noteWarnings(after: error)
            exit(withError: ExitCode(error.exit.rawValue))
        } catch {
            exit(withError: error)
        }
    }
}

/// The arguments after the program's name. `CommandLine` is not used: it reads /proc/self/cmdline and has no arguments
/// where /proc is not mounted.
private var programArguments: [String] {
    (1..<max(1, Int(linux_argument_count()))).compactMap { index in
        linux_argument(Int32(index)).map { String(cString: $0) }
    }
}

/// Options of every command.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print one JSON document instead of text, as Documentation/schema describes.")
    var json = false

    /// Prints a document as JSON with `--json`, otherwise as text.
    func print<Document: Report>(_ document: Document) throws {
        if json {
            try Console.output(json: document)
        } else {
            Console.output(document.text)
        }
    }

    /// Prints a document about `devices`. Throws `ToolError.noDevices` after the document if there are none.
    func print<Document: Report>(_ document: Document, about devices: some Collection) throws {
        try print(document)
        if devices.isEmpty { throw ToolError.noDevices }
    }
}

/// The result of a command: encoded as a JSON document, and as text for people.
protocol Report: Encodable {
    /// Tables and lists, ending in a newline.
    var text: String { get }
}
