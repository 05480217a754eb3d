import ArgumentParser

@main
struct VerbsTool: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "verbs")
}
