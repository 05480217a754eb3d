// Two processes that exchange data over soft while harm is done to them:
//
//     soft-chaos [--seconds N] [--seed N] [--verbose]
//
// They use every one-sided and two-sided operation of RC, with 1 byte to 1 MiB, over several queue pairs, in both
// directions, in memory of the API's and of malloc(3). Meanwhile peers are killed and stopped, memory is deregistered and
// queue pairs are destroyed in the middle of copies, and new peers start with small limits or a /dev/shm that is full or
// read-only. Nothing may hang; no byte may be lost or wrong; the survivor gets an error; no byte of memory changes after
// ibv_dereg_mr has returned; and no file or process remains.
//
// The seed decides what is done, and the data. When it happens within a copy is up to the scheduler, so a failure may need
// several runs to come again. Every kind of harm is done at least once, however short the time is.
//
// `soft-chaos peer ROLE [fsize=BYTES] [nofile=COUNT]` is one of the two processes.

import CNamespaces
import Glibc
import Verbs

/// Prints a line on standard error.
func say(_ text: String) { try? writeAll(Array((text + "\n").utf8), to: STDERR_FILENO) }

func runPeer(_ arguments: ArraySlice<String>) throws {
    guard let role = arguments.first.flatMap({ Int($0) }) else { throw Failure("peer: the role is missing") }
    try Limits.apply(arguments.dropFirst())
    defer { Limits.lift() }
    let peer: Peer
    do {
        peer = try Peer(role: role)
    } catch {
        try writeAll(encoded(Answer(kind: .refused, text: "\(error)")), to: STDOUT_FILENO)
        Limits.lift()
        exit(3)
    }
    do {
        try peer.run()
    } catch {
        try writeAll(encoded(Answer(kind: .failure, text: "\(error)")), to: STDOUT_FILENO)
        Limits.lift()
        exit(1)
    }
}

func runController(_ arguments: ArraySlice<String>) throws {
    var seconds = 20.0
    var seed = UInt64.random(in: 0...0xFFFF_FFFF)
    var rest = arguments.filter { $0 != "--verbose" }[...]
    while let option = rest.popFirst() {
        guard let text = rest.popFirst(), let value = Double(text) else { throw Failure("\(option) needs a number") }
        switch option {
        case "--seconds": seconds = value
        case "--seed": seed = UInt64(text) ?? 0
        default: throw Failure("unknown option \(option): there are --seconds, --seed and --verbose")
        }
    }
    // A peer that has ended gives EPIPE, which names it.
    signal(SIGPIPE, SIG_IGN)
    var folder: SharedMemoryFolder?
    do { folder = try SharedMemoryFolder() } catch {
        say("soft-chaos: no epochs with a full or read-only /dev/shm: \(error)")
    }
    guard adopt_orphans() == 0 else { throw Failure("prctl: \(String(cString: strerror(errno)))") }
    let before = SharedMemoryFolder.files()
    say("soft-chaos --seconds \(seconds) --seed \(seed)")
    let controller = Controller(seed: seed, folder: folder, isVerbose: arguments.contains("--verbose"))
    do {
        try controller.run(seconds: seconds)
    } catch {
        throw Failure("\(error)\n    in \(controller.now)\n    seed \(seed)")
    }
    let left = SharedMemoryFolder.files().subtracting(before)
    guard left.isEmpty else { throw Failure("these files are left in /dev/shm: \(left.sorted()); seed \(seed)") }
    guard waitpid(-1, nil, WNOHANG) == -1 && errno == ECHILD else { throw Failure("a process is left; seed \(seed)") }
    print(controller.summary)
}

let arguments = CommandLine.arguments.dropFirst()
do {
    if arguments.first == "peer" {
        try runPeer(arguments.dropFirst())
    } else {
        try runController(arguments)
    }
} catch {
    say("soft-chaos: \(error)")
    exit(1)
}
