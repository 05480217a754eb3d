// What an open device costs: the time to open and close it, and the memory of its objects.
//
//     DeviceCost [--device NAME] [--rounds N]
//
// Prints one JSON document: times in milliseconds, and resident memory in bytes (statm of proc(5)). The memory is that of
// pages that were touched, so it is what a program of these sizes really uses, not what it may use.

import Foundation
import Verbs

/// Queue pairs, each with 64 send and 64 receive work requests of one SGE.
let queuePairCount = 1000

struct Percentiles: Codable {
    let p50: Double
    let p99: Double

    init(_ nanoseconds: [UInt64]) {
        let sorted = nanoseconds.sorted()
        func percentile(_ part: Double) -> Double { Double(sorted[Int(Double(sorted.count - 1) * part)]) / 1e6 }
        p50 = percentile(0.5)
        p99 = percentile(0.99)
    }
}

struct Costs: Codable {
    /// The first time in the process, in which devices and providers are listed, too.
    var firstOpenMilliseconds = 0.0
    var openMilliseconds: Percentiles
    var closeMilliseconds: Percentiles
    var deviceBytes = 0
    var queuePairBytes = 0
    /// Two devices that have exchanged messages: both directions together.
    var connectionBytes = 0
}

func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func residentBytes() throws -> Int {
    let words = try String(contentsOfFile: "/proc/self/statm", encoding: .ascii).split(separator: " ")
    return (words.count > 1 ? Int(words[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
}

/// A queue pair with a completion queue, in an object that an array can hold.
final class End {
    let memory: MemoryRegion
    var completions: CompletionQueue
    var pair: QueuePair

    init(_ domain: ProtectionDomain) throws {
        memory = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        completions = try domain.context.makeCompletionQueue(capacity: 128)
        pair = try domain.makeQueuePair(.reliableConnection, completions: completions)
    }

    func next() throws {
        while true {
            guard let completion = try completions.poll() else { continue }
            return try completion.check()
        }
    }
}

final class HeldPair {
    let pair: QueuePair
    init(_ domain: ProtectionDomain, _ completions: borrowing CompletionQueue) throws {
        pair = try domain.makeQueuePair(
            .reliableConnection, completions: completions,
            capabilities: QueuePair.Capabilities(maxSendWR: 64, maxReceiveWR: 64))
    }
}

func measure(_ name: String, _ rounds: Int) throws {
    let start = now()
    var context: Context? = try Device.named(name).open()
    let first = now() - start
    var opened: [UInt64] = []
    var closed: [UInt64] = []
    for _ in 0..<rounds {
        let device = try Device.named(name)
        let start = now()
        context = nil
        let ended = now()
        context = try device.open()
        opened.append(now() - ended)
        closed.append(ended - start)
    }
    var costs = Costs(openMilliseconds: Percentiles(opened), closeMilliseconds: Percentiles(closed))
    costs.firstOpenMilliseconds = Double(first) / 1e6

    var before = try residentBytes()
    let other = try Device.named(name).open()
    costs.deviceBytes = try residentBytes() - before

    let domain = try context!.makeProtectionDomain()
    let completions = try context!.makeCompletionQueue(capacity: 1024)
    var held: [HeldPair] = []
    held.reserveCapacity(queuePairCount)
    before = try residentBytes()
    for _ in 0..<queuePairCount { held.append(try HeldPair(domain, completions)) }
    costs.queuePairBytes = (try residentBytes() - before) / queuePairCount

    let (left, right) = (try End(domain), try End(other.makeProtectionDomain()))
    before = try residentBytes()
    let leftEnd = try left.pair.endpoint(memory: left.memory.remote)
    try left.pair.connect(to: right.pair.endpoint(memory: right.memory.remote))
    try right.pair.connect(to: leftEnd)
    for _ in 0..<1000 {
        for (sender, receiver) in [(left, right), (right, left)] {
            try receiver.pair.postReceive(receiver.memory.sge())
            try sender.pair.postSend(.send, sender.memory.sge())
            try sender.next()
            try receiver.next()
        }
    }
    costs.connectionBytes = try residentBytes() - before
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    print(String(decoding: try encoder.encode(costs), as: UTF8.self))
}

var device = "soft0"
var rounds = 200
let words = Array(CommandLine.arguments.dropFirst())
for (option, value) in zip(words, words.dropFirst()) {
    if option == "--device" { device = value }
    if option == "--rounds" { rounds = max(1, Int(value) ?? 0) }
}
try measure(device, rounds)
