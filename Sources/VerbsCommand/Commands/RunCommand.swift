import ArgumentParser
import CLinux
import Glibc
import SystemPackage
import Verbs

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a program in C on the devices of this package, unchanged.",
        usage: "verbs run [--device <device>] [--faults <rules>] [--library <directory>] [--verbose] -- <command>…",
        discussion: """
            The command and every program that it starts find this package's libibverbs.so.1 instead of the \
            distribution's. It lists the software devices beside the kernel's devices, which the distribution's library \
            goes on serving. In /sys/class/infiniband they find the software devices too (LD_PRELOAD), and librdmacm \
            connects over them where the kernel has no RDMA device or no rdma_cm, or with --device. The process of verbs \
            becomes the command, so its signals and its exit code are the command's.

            A static program, a program for another machine, and one with raised privileges (set-user-ID, \
            set-group-ID, file capabilities) cannot use the library, and are refused.
            """)

    @Option(
        help: """
            The only device that the command sees, such as soft0, or soft_eth0, which is not in the list otherwise \
            (RDMA_DEVICE).
            """)
    var device: String?

    @Option(
        help: ArgumentHelp(
            """
            Inject faults into the software devices (RDMA_SOFT_FAULTS): rules such as "seed=7; loss=1%", or @FILE. \
            Documentation/faults.md describes them.
            """, valueName: "rules"))
    var faults: String?

    @Option(help: "The directory of libibverbs.so.1; without it, the one that belongs to verbs.")
    var library: String?

    @Flag(help: "Print what is set up, and the library's messages (RDMA_LOG=info).")
    var verbose = false

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        guard !command.isEmpty else { throw ValidationError("No command is given: verbs run -- COMMAND") }
        if let faults {
            if faults.utf8.contains(0) { throw ValidationError("The rules of --faults contain a NUL character.") }
            if let problem = FaultRules.problem(with: faults) { throw ValidationError(problem) }
        }
    }

    func run() throws {
        let library = try DropInLibrary(library)
        let program = try Program(named: command[0])
        try program.refuseIfUnreachable()
        if let device {
            let chosen = try Device.chosen(device)[0]
            guard faults == nil || chosen.isSoftware else {
                throw ToolError(
                    .unsupported, "\(device) is not a software device: faults cannot be injected",
                    hint: "use one: --device soft0; verbs devices lists them")
            }
        }
        var settings = [("LD_LIBRARY_PATH", library.searchPath)]
        if let preload = library.preload {
            settings += [("LD_PRELOAD", preload), ("ASAN_OPTIONS", library.sanitizerOptions)]
        }
        if let device { settings.append(("RDMA_DEVICE", device)) }
        if let faults { settings.append((FaultRules.variable, faults)) }
        if verbose && getenv("RDMA_LOG") == nil { settings.append(("RDMA_LOG", "info")) }
        for (name, value) in settings {
            setenv(name, value, 1)
            if verbose { Console.note("verbs: \(name)=\(value)") }
        }
        if verbose { Console.note("verbs: running \(program.path)") }
        try replaceProcess(by: program)
    }

    /// execve(2): returns only by throwing.
    private func replaceProcess(by program: Program) throws(ToolError) -> Never {
        var arguments = command.map { strdup($0) } + [nil]
        execv(program.path, &arguments)
        throw ToolError(
            .failure, "cannot start \(program.path): \(Errno(rawValue: errno))",
            hint: "check that it is executable; shell builtins such as cd need a shell: sh -c '...'")
    }
}
