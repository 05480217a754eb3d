import ArgumentParser

struct SimCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sim",
        abstract: "Run a command over a simulated device.",
        usage: "verbs sim <type> [--option <option>]… [--library <file>] -- <command>…",
        discussion: """
            The command and every process that it starts see one kernel device of that type, and none of this machine's \
            kernel devices. Each process simulates its own device; all are connected to one simulated network. The \
            command must be linked dynamically. The exit code is that of the command.

            The device is a library of the package rdma-provider-dev (-devel). By default it is searched for in the \
            directory of verbs, where swift build --product uverbs-sim puts it, and then in ../lib/rdma-verbs.

            Options of every type: write (a kernel without uverbs ioctl), abi=N (a kernel driver of that ABI version). Of \
            mlx5: roce (the link layer is Ethernet), cqe0 (a CQE holds the queue pair number, not the user index), static \
            (a kernel without dynamic UAR), trap (the device runs at each store to a UAR page). Of cxgb4: t4, t5 or t6 (the \
            generation of the adapter; T5 by default), cqe32 (a kernel driver from before CQEs of 64 bytes), onchip (of \
            t4: send queues are in the adapter's memory), windows (a kernel driver with memory windows), dense (queues \
            without write-combining doorbells), reorder (the CQE of a READ comes late), notrap (stores to doorbell pages \
            are not trapped, so that some events are lost).
            """)

    @Argument(help: "The type of the device.")
    var type: SimulatedDeviceType

    @Option(help: "A property of the device; can be repeated.")
    var option: [String] = []

    @Option(help: "The library libuverbs-sim.so; without it, that of the source tree or of the package.")
    var library: String?

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        guard !command.isEmpty else {
            throw ValidationError("No command is given: verbs sim \(type.rawValue) -- COMMAND")
        }
        for word in option where !type.accepts(word) {
            throw ValidationError(
                "\"\(word)\" is not an option of \(type.rawValue). Options: \(type.options.joined(separator: ", ")), abi=N"
            )
        }
    }

    func run() throws {
        let library = try SimulatorLibrary(library)
        let wire = try SimulatedWire(library)
        let status: Int32
        do {
            defer { wire.remove() }
            let device = ([type.rawValue] + option + ["free", "wire=\(wire.path)"]).joined(separator: " ")
            status = try ChildProcess.run(command, environment: wire.environment(device: device))
        }
        throw ExitCode(status)
    }
}

/// The device types that Sources/Simulator implements.
enum SimulatedDeviceType: String, CaseIterable, ExpressibleByArgument {
    case hfi1, mlx5, cxgb4

    /// The options of the device, as in Sources/CSimulatorABI/include/uverbs_sim.h.
    var options: [String] {
        switch self {
        case .hfi1: ["write"]
        case .mlx5: ["write", "roce", "cqe0", "static", "trap"]
        case .cxgb4: ["write", "t4", "t5", "t6", "cqe32", "onchip", "windows", "dense", "reorder", "notrap"]
        }
    }

    func accepts(_ word: String) -> Bool {
        options.contains(word) || word.wholeMatch(of: /abi=[0-9]{1,4}/) != nil
    }
}
