import ArgumentParser

struct SimCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sim",
        abstract: "Run a command over a simulated device.",
        usage: "verbs sim <kind> [--option <option>]… [--library <file>] -- <command>…",
        discussion: """
            The command, and every process that it starts, sees a device of that kind and no other of the kernel. It is \
            simulated in each process; all of them are on one wire, so that they can talk to each other. The command \
            must be linked dynamically. Ends with the command's exit code.

            The device is a library of the source tree, Tests/Simulator, and not part of any package. It is looked for \
            beside verbs: swift build --product uverbs-sim puts it there.

            Options of every kind: write (a kernel without ioctl), abi=N (a kernel driver of that ABI version). Of mlx5: \
            roce (the port is Ethernet), cqe0 (completions name queue pairs by number), static (no UAR objects), trap \
            (the device runs at each store to a doorbell page).
            """)

    @Argument(help: "The kind of device.")
    var kind: SimulatedKind

    @Option(help: "What is special about the device; can be repeated.")
    var option: [String] = []

    @Option(help: "The library libuverbs-sim.so; without it, the one beside verbs.")
    var library: String?

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        guard !command.isEmpty else { throw ValidationError("Say what to run: verbs sim \(kind.rawValue) -- COMMAND") }
        for word in option where !kind.knows(word) {
            throw ValidationError(
                "There is no \(kind.rawValue) \"\(word)\". Options: \(kind.options.joined(separator: ", ")), abi=N")
        }
    }

    func run() throws {
        let library = try SimulatorLibrary(library)
        let wire = try SimulatedWire(library)
        let status: Int32
        do {
            defer { wire.remove() }
            let device = ([kind.rawValue] + option + ["free", "wire=\(wire.path)"]).joined(separator: " ")
            status = try ChildProcess.run(command, environment: wire.environment(device: device))
        }
        throw ExitCode(status)
    }
}

/// The kinds of device that Tests/Simulator has.
enum SimulatedKind: String, CaseIterable, ExpressibleByArgument {
    case hfi1, mlx5

    /// Words that change what the device is: those of Tests/Simulator/CSimulatorABI/include/uverbs_sim.h.
    var options: [String] {
        switch self {
        case .hfi1: ["write"]
        case .mlx5: ["write", "roce", "cqe0", "static", "trap"]
        }
    }

    func knows(_ word: String) -> Bool {
        options.contains(word) || word.wholeMatch(of: /abi=[0-9]{1,4}/) != nil
    }
}
