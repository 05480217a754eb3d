import Glibc

// Random histories of the transport in numbers that a test suite has no time for; scripts/simulate runs it as an
// optimized build with assertions. Arguments: the first seed, the number of seeds, and a file that holds the current
// seed while it runs, for the case that an assertion ends the program.

let arguments = CommandLine.arguments.dropFirst().prefix(2).compactMap { UInt64($0) }
guard arguments.count == 2, CommandLine.arguments.count == 4 else {
    print("usage: transport-histories FIRST-SEED COUNT FILE")
    exit(2)
}
let file = open(CommandLine.arguments[3], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0o644)
guard file >= 0 else {
    print("\(CommandLine.arguments[3]): cannot be written (errno \(errno))")
    exit(2)
}

/// Runs the histories of one seed: those that `SIM_SEED` repeats in the test suite. The bottleneck takes as long as all
/// others together, so only some seeds have it.
func run(_ seed: UInt64) throws {
    let reliable = try ReliableScenario(seed: seed)
    try reliable.run()
    try UnreliableScenario(seed: seed).run()
    try DatagramScenario(seed: seed).run()
    if seed % 16 == 0 { try BottleneckScenario(seed: seed).run() }
}

var failures = 0
for seed in arguments[0]..<arguments[0] + arguments[1] {
    let note = "SIM_SEED=\(seed)\n"
    _ = note.withCString { pwrite(file, $0, note.utf8.count, 0) }
    do {
        try run(seed)
    } catch {
        failures += 1
        print("SIM_SEED=\(seed): \(error)")
    }
}
exit(failures == 0 ? 0 : 1)
