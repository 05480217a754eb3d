// Moves data between two queue pairs of a device, compares every byte, and meanwhile calls fork(2).
//
//     fork-peer DEVICE writes|exits|execs|posts|calls [CHILDREN]
//     fork-peer DEVICE marks
// The child writes into the registered memory of its parent, exits, execs, calls the functions of the data path, or calls
// the Swift API and releases objects. Prints what it saw; its exit status is 0 if the parent was not disturbed. `marks`
// forks no child: it prints which pages of registered memory a child would inherit.

import CForkedChild
import CIBVerbs
import Glibc
import Synchronization
import Verbs

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// One end of a connection: 16 pages of registered memory, an extended completion queue and a queue pair.
struct Side: ~Copyable {
    static let size = 65536
    let region: MemoryRegion
    var completions: CompletionQueue
    var queuePair: QueuePair

    /// - Parameter memory: Memory of the program to register; nil: the region allocates its own.
    init(_ context: Context, memory: UnsafeMutableRawBufferPointer? = nil) throws {
        let domain = try context.makeProtectionDomain()
        let access: AccessFlags = [.localWrite, .remoteWrite, .remoteRead]
        let region =
            if let memory {
                try domain.unsafeRegister(memory, access: access)
            } else {
                try domain.makeMemoryRegion(byteCount: Side.size, access: access)
            }
        let completions = try context.makeCompletionQueue(capacity: 64, fields: .standard)
        var options = QueuePair.CreationOptions()
        options.extendedOperations = [.send]
        queuePair = try domain.makeQueuePair(.reliableConnection, completions: completions, options: options)
        self.completions = completions
        self.region = region
    }
}

/// What the forking thread needs, and what it found.
struct Children: @unchecked Sendable {
    // Unchecked: the pointers are used by children only.
    var orders: child_orders
    var count: Int
    var statuses: [Int32] = []
    var answers: [child_answers] = []

    mutating func run() {
        for _ in 0..<count {
            var descriptor: Int32 = -1
            let child = fork_child(&orders, &descriptor)
            guard child > 0 else { return statuses.append(-child) }
            statuses.append(wait_for_child(child))
            var answer = child_answers()
            if read(descriptor, &answer, MemoryLayout<child_answers>.size) == MemoryLayout<child_answers>.size {
                answers.append(answer)
            }
            close(descriptor)
        }
    }
}

/// Objects that a child releases.
final class Victims {
    let context: Context
    let region: MemoryRegion
    let side: Side

    init(_ device: Device) throws {
        context = try device.open()
        region = try context.makeProtectionDomain().makeMemoryRegion(byteCount: 4096)
        side = try Side(context)
    }
}

nonisolated(unsafe) var victims: Victims?

/// Whether the call throws EPERM.
func isRefused(_ call: () throws(VerbsError) -> Void) -> Bool {
    do throws(VerbsError) { try call() } catch { return error.errno == .notPermitted }
    return false
}

/// In the child: calls the API, then releases everything. Returns the number of the step that failed, or 0.
func callsInChild(_: UnsafeMutableRawPointer?) -> Int32 {
    guard let held = victims else { return 1 }
    guard isRefused({ () throws(VerbsError) in _ = try held.context.attributes() }) else { return 2 }
    guard isRefused({ () throws(VerbsError) in try held.region.close() }) else { return 3 }
    guard isRefused({ () throws(VerbsError) in _ = try held.context.makeProtectionDomain() }) else { return 4 }
    guard isRefused({ () throws(VerbsError) in _ = try held.context.nextEvent(timeout: .zero) }) else { return 5 }
    return 0
}

func releasesInChild(_ context: UnsafeMutableRawPointer?) -> Int32 {
    let status = callsInChild(context)
    victims = nil
    return status
}

/// One round: a SEND from left to right and a READ back, with every byte compared.
func moveData(_ left: inout Side, _ right: inout Side, round: Int) throws {
    let half = Side.size / 2
    let pattern = UInt8(truncatingIfNeeded: round % 0xEE)
    memset(left.region.unsafeBytes.baseAddress!, Int32(pattern), half)
    memset(left.region.unsafeBytes.baseAddress! + half, 0xFF, half)
    try right.queuePair.postReceive(try right.region.sge(0..<half))
    try left.queuePair.postSend(.send, try left.region.sge(0..<half))
    try left.completions.poll(timeout: .seconds(300)).check()
    try right.completions.poll(timeout: .seconds(300)).check()
    try compare(right.region.unsafeBytes[..<half], pattern, "received", round)
    try left.queuePair.postSend(.read(from: right.region.remote), try left.region.sge(half..<Side.size))
    try left.completions.poll(timeout: .seconds(300)).check()
    try compare(left.region.unsafeBytes[half...], pattern, "read", round)
}

func compare(_ bytes: Slice<UnsafeMutableRawBufferPointer>, _ expected: UInt8, _ what: String, _ round: Int) throws {
    guard let wrong = bytes.first(where: { $0 != expected }) else { return }
    throw Failure("round \(round): \(what) \(wrong) instead of \(expected)")
}

func run(_ device: Device, _ scenario: String, children count: Int) throws {
    let context = try device.open()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Side.size, alignment: 4096)
    var left = try Side(context)
    var right = try Side(context, memory: memory)
    let (here, there) = (try left.queuePair.endpoint(), try right.queuePair.endpoint())
    try left.queuePair.connect(to: there)
    try right.queuePair.connect(to: here)
    try moveData(&left, &right, round: 0)

    let acts = [
        "writes": CHILD_WRITES, "exits": CHILD_EXITS, "execs": CHILD_EXECS, "posts": CHILD_POSTS, "calls": CHILD_CALLS,
    ]
    guard let act = acts[scenario] else { throw Failure("\(scenario): no such scenario") }
    if act == CHILD_CALLS { victims = try Victims(device) }
    let orders = child_orders(
        act: act, memory: (left.region.unsafeBytes.baseAddress, right.region.unsafeBytes.baseAddress), size: Side.size,
        qp: left.queuePair.unsafeRaw,
        cq: UnsafeMutableRawPointer(left.completions.unsafeRaw).assumingMemoryBound(to: ibv_cq_ex.self),
        body: releasesInChild, context: nil)
    let children = Children(orders: orders, count: count)
    let outcome = Outcome()
    try startThread {
        var children = children
        children.run()
        outcome.finish(children)
    }
    var rounds = 1
    while !outcome.isFinished || rounds < 100 {
        try moveData(&left, &right, round: rounds)
        rounds += 1
    }
    if let held = victims {
        // The children have destroyed nothing of it.
        _ = try held.context.attributes()
        try held.region.close()
    }
    let statuses = Set(outcome.children!.statuses.map(String.init)).sorted().joined(separator: ",")
    let answers = Set(
        outcome.children!.answers.map { answer in
            "\(answer.post_send) \(answer.post_recv) \(answer.poll_cq) \(answer.req_notify_cq) \(answer.wr_complete) \(answer.start_poll)"
        }
    ).sorted().joined(separator: ",")
    print(
        "provider=\(context.provider.name) rounds=\(rounds) children=\(count) statuses=\(statuses) answers=\(answers)"
            + " fork=\(ForkSupport.status)")
}

/// Registers two pages, and the first of them again, and prints after each step whether a child would inherit the two.
func showMarks(_ device: Device) throws {
    let context = try device.open()
    let domain = try context.makeProtectionDomain()
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let region = try domain.makeMemoryRegion(byteCount: 2 * page)
    let bytes = region.unsafeBytes
    let second = try domain.unsafeRegister(UnsafeMutableRawBufferPointer(rebasing: bytes[..<64]), access: .localWrite)
    var steps = [try marks(of: bytes, page)]
    try region.close()
    steps.append(try marks(of: bytes, page))
    try second.close()
    steps.append(try marks(of: bytes, page))
    var late = "accepted"
    do throws(VerbsError) { try ForkSupport.initialize() } catch { late = "\(error.errno.rawValue)" }
    print(
        "provider=\(context.provider.name) marks=\(steps.joined(separator: ",")) late=\(late) fork=\(ForkSupport.status)"
    )
}

/// For each page `kept` if a child does not inherit it, by the flag `dc` of /proc/self/smaps, else `inherited`.
func marks(of bytes: UnsafeMutableRawBufferPointer, _ page: Int) throws -> String {
    guard let file = fopen("/proc/self/smaps", "r") else { throw Failure("no /proc/self/smaps") }
    defer { fclose(file) }
    var line: UnsafeMutablePointer<CChar>?
    var room = 0
    defer { free(line) }
    var within: [Int] = []
    var found = ["unmapped", "unmapped"]
    while getline(&line, &room, file) > 0 {
        let words = String(cString: line!).split(whereSeparator: { " -\n".contains($0) })
        if words.count >= 2, let start = UInt(words[0], radix: 16), let end = UInt(words[1], radix: 16), end > start {
            within = (0..<2).filter { (start..<end).contains(UInt(bitPattern: bytes.baseAddress! + $0 * page)) }
        } else if words.first == "VmFlags:" {
            for index in within { found[index] = words.contains("dc") ? "kept" : "inherited" }
        }
    }
    return found.joined(separator: "+")
}

/// The result of the forking thread.
final class Outcome: @unchecked Sendable {
    // Unchecked: `children` is set before `isFinished`.
    private let finished = Atomic(false)
    private(set) var children: Children?

    var isFinished: Bool { finished.load(ordering: .acquiring) }

    func finish(_ children: Children) {
        self.children = children
        finished.store(true, ordering: .releasing)
    }
}

final class ThreadBody {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}

func startThread(_ body: @escaping @Sendable () -> Void) throws {
    var thread = pthread_t()
    let context = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
    let error = pthread_create(
        &thread, nil,
        { context in
            Unmanaged<ThreadBody>.fromOpaque(context!).takeRetainedValue().run()
            return nil
        }, context)
    guard error == 0 else { throw Failure("pthread_create: \(error)") }
    pthread_detach(thread)
}

let arguments = CommandLine.arguments
guard arguments.count >= 3 else {
    print("usage: fork-peer DEVICE writes|exits|execs|posts|calls|marks [CHILDREN]")
    exit(64)
}
do {
    let count = arguments.count > 3 ? Int(arguments[3]) ?? 20 : 20
    let device = try Device.named(arguments[1])
    if arguments[2] == "marks" { try showMarks(device) } else { try run(device, arguments[2], children: count) }
} catch {
    print("failed: \(error)")
    exit(1)
}
