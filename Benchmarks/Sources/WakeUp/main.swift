// The time until a process that sleeps in poll(2) has the message of another process:
//
//     WakeUp [--count N] [--waiter-core CORE]
//
// One process, on that processor, waits for completion events of soft0 (ibv_req_notify_cq, a completion channel), the other sends it 8 bytes
// every 2 ms: the time before it posted the SEND. Beside it the same over a pipe, which is the kernel's own wake-up. Prints
// one JSON document: percentiles in microseconds, over shared memory (RDMA_SOFT_SHM=0: over UDP).

import Foundation
import Verbs

struct Failure: Error { let text: String }

struct Percentiles: Codable {
    let p50: Double
    let p99: Double

    init(_ nanoseconds: [UInt64]) {
        let sorted = nanoseconds.sorted()
        func percentile(_ part: Double) -> Double { Double(sorted[Int(Double(sorted.count - 1) * part)]) / 1000 }
        p50 = percentile(0.5)
        p99 = percentile(0.99)
    }
}

func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func readLine(_ descriptor: Int32) throws -> Data {
    var line = Data()
    var byte: UInt8 = 0
    while read(descriptor, &byte, 1) == 1 {
        if byte == 10 { return line }
        line.append(byte)
    }
    throw Failure(text: "the other process has ended")
}

func writeLine(_ value: some Encodable, _ descriptor: Int32) throws {
    let line = [UInt8](try JSONEncoder().encode(value)) + [10]
    guard write(descriptor, line, line.count) == line.count else { throw Failure(text: "the other process has ended") }
}

/// A queue pair with 8 bytes of registered memory, connected over two pipes.
struct End: ~Copyable {
    let memory: MemoryRegion
    let channel: CompletionChannel
    var completions: CompletionQueue
    var pair: QueuePair

    init(_ input: Int32, _ output: Int32) throws {
        let context = try Device.named("soft0").open()
        let domain = try context.makeProtectionDomain()
        let memory = try domain.makeMemoryRegion(byteCount: 8)
        let channel = try context.makeCompletionChannel()
        let completions = try context.makeCompletionQueue(capacity: 16, channel: channel)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
        try writeLine(pair.endpoint(), output)
        try pair.connect(to: JSONDecoder().decode(Endpoint.self, from: readLine(input)))
        try pair.postReceive(memory.sge())
        // Both are connected, and have a receive.
        try writeLine(true, output)
        _ = try readLine(input)
        self.memory = memory
        self.channel = channel
        self.completions = completions
        self.pair = pair
    }

    /// Sleeps until the next completion.
    mutating func next() throws -> WorkCompletion {
        while true {
            try completions.arm()
            if let completion = try completions.poll() { return completion }
            guard try channel.wait(timeout: .seconds(20)) != nil else { throw Failure(text: "no event within 20 s") }
            if let completion = try completions.poll() { return completion }
        }
    }
}

/// The waiter: prints the times of `count` messages of each kind, in nanoseconds, to its standard output.
func wait(_ count: Int) throws {
    var times: [UInt64] = []
    for _ in 0..<count {
        var sent: UInt64 = 0
        guard read(STDIN_FILENO, &sent, 8) == 8 else { throw Failure(text: "the sender has ended") }
        times.append(now() - sent)
    }
    try writeLine(Percentiles(times), STDOUT_FILENO)
    var end = try End(STDIN_FILENO, STDOUT_FILENO)
    times = []
    for _ in 0..<count {
        let completion = try end.next()
        let arrived = now()
        try completion.check()
        times.append(arrived - end.memory.unsafeBytes.load(as: UInt64.self))
        try end.pair.postReceive(end.memory.sge())
    }
    try writeLine(Percentiles(times), STDOUT_FILENO)
}

struct Result: Codable {
    let pipe: Percentiles
    let soft: Percentiles
}

/// Starts the waiter, and sends.
func send(_ count: Int, waiterCore: String?) throws {
    let waiter = Process()
    let (toWaiter, fromWaiter) = (Pipe(), Pipe())
    waiter.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
    waiter.arguments = (waiterCore.map { ["taskset", "--cpu-list", $0] } ?? []) + [program, "wait", "\(count)"]
    waiter.standardInput = toWaiter
    waiter.standardOutput = fromWaiter
    try waiter.run()
    let output = toWaiter.fileHandleForWriting.fileDescriptor
    let input = fromWaiter.fileHandleForReading.fileDescriptor
    for _ in 0..<count {
        usleep(2000)
        var time = now()
        guard write(output, &time, 8) == 8 else { throw Failure(text: "the waiter has ended") }
    }
    let pipe = try JSONDecoder().decode(Percentiles.self, from: readLine(input))
    var end = try End(input, output)
    for _ in 0..<count {
        usleep(2000)
        end.memory.unsafeBytes.storeBytes(of: now(), as: UInt64.self)
        try end.pair.postSend(.send, end.memory.sge())
        try end.next().check()
    }
    let soft = try JSONDecoder().decode(Percentiles.self, from: readLine(input))
    waiter.waitUntilExit()
    try writeLine(Result(pipe: pipe, soft: soft), STDOUT_FILENO)
}

let words = Array(CommandLine.arguments.dropFirst())
if words.first == "wait", words.count == 2 {
    try wait(Int(words[1]) ?? 0)
} else {
    var count = 1000
    var waiterCore: String?
    for (option, value) in zip(words, words.dropFirst()) {
        if option == "--count" { count = max(1, Int(value) ?? 0) }
        if option == "--waiter-core" { waiterCore = value }
    }
    try send(count, waiterCore: waiterCore)
}
