import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs(1) matches --help and the program")
struct ManualTests {
    /// The part of the `--experimental-dump-help` output that the tests read.
    private struct Dump: Decodable {
        struct Command: Decodable {
            var commandName: String
            var subcommands: [Command]?
            var arguments: [Argument]?
        }
        struct Argument: Decodable {
            struct Name: Decodable {
                var kind: String
                var name: String
            }
            var names: [Name]?
            var abstract: String?
        }
        var command: Command
    }

    private let manual: String

    init() throws {
        let url = Repository.root.appending(path: "Documentation/man/verbs.1")
        manual = try String(contentsOf: url, encoding: .utf8).replacingOccurrences(of: "\\-", with: "-")
    }

    private func commands() async throws -> [Dump.Command] {
        let outcome = try await Tool.run("--experimental-dump-help")
        #expect(outcome.status == 0)
        return try JSONDecoder().decode(Dump.self, from: Data(outcome.output.utf8)).command.subcommands ?? []
    }

    @Test("the manual page has every command and option of the program, and no others")
    func options() async throws {
        let commands = try await commands().filter { $0.commandName != "help" }
        #expect(
            commands.map(\.commandName).sorted()
                == ["devices", "doctor", "info", "perf", "ping", "plot", "providers", "run", "sim", "top", "watch"])
        let described = Set(manual.matches(of: /(?m)^\.SS (\w+)$/).map { String($0.1) })
        #expect(described == Set(commands.map(\.commandName)))
        let options = Set(
            commands.flatMap { $0.arguments ?? [] }.flatMap { $0.names ?? [] }.filter { $0.kind == "long" }
                .map { "--\($0.name)" })
        let inManual = Set(
            manual.matches(of: /(?m)^\.(?:B|BI|BR) .*?(--[a-z0-9-]+)/).map { String($0.1) }
                + manual.matches(of: /, " (--[a-z0-9-]+)/).map { String($0.1) })
        #expect(options.subtracting(inManual) == [])
        #expect(inManual.subtracting(options) == [])
    }

    @Test("every option has a help text")
    func helpTexts() async throws {
        for command in try await commands() where command.commandName != "help" {
            for argument in command.arguments ?? [] {
                #expect(argument.abstract?.isEmpty == false, "\(command.commandName): \(argument)")
            }
        }
    }

    @Test("the exit codes and their meanings are those of the program")
    func exitCodes() throws {
        let section = try #require(manual.split(separator: ".SH EXIT STATUS\n").last?.split(separator: ".SH ").first)
        let listed = section.matches(of: /\.TP\n\.B (\d+)\n(.+)\n/).map { "\($0.1) \($0.2)" }
        #expect(listed == ToolExit.allCases.map { "\($0.rawValue) \($0.meaning)" })
    }

    @Test("the manual page names every operation")
    func operations() {
        for operation in Operation.allCases { #expect(manual.contains(operation.rawValue)) }
    }
}
