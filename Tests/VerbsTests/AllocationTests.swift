import CAllocationCounter
import SystemPackage
import Testing
import Verbs

/// What `body` allocates on this thread, the least of several runs: a thread that polls soft also passes on what has
/// come for other processes of this machine, and takes memory for each that it meets for the first time.
@inline(never)
private func allocations(_ body: () throws(VerbsError) -> Void) throws(VerbsError) -> UInt64 {
    var least = UInt64.max
    for _ in 0..<5 where least > 0 {
        let before = allocation_count()
        try body()
        least = min(least, allocation_count() - before)
    }
    return least
}

@Suite(
    "The data path allocates nothing",
    .enabled(if: !allocation_count_is_blind(), "a sanitizer stands in front of malloc"))
struct AllocationTests {
    private static let rounds = 200

    @Test("the counter counts")
    func counter() throws {
        let count = try allocations { () throws(VerbsError) in
            withExtendedLifetime([UInt8](repeating: 1, count: Int.random(in: 1000...2000))) {}
        }
        #expect(count >= 1)
    }

    @Test("single posts of every form, single polls, receives", arguments: Bench.devices)
    func single(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(sendSlices: 2, inlineBytes: 16))
        let (here, there) = (try pair.left.region.slice(0..<8), try pair.right.region.slice(0..<64))
        let (remote, bytes) = (pair.right.region.remote, [1, 2, 3, 4] as [UInt8])
        let slices = [here, here]
        // A set with two members is an array first, where the compiler does not optimise.
        let fenced: SendFlags = [.signaled, .fence]
        func round() throws(VerbsError) {
            try pair.right.queuePair.postReceive(there, id: 1)
            try pair.left.queuePair.post(.send, here)
            try pair.left.queuePair.post(.write(to: remote), slices: slices.span)
            try pair.left.queuePair.post(.write(to: remote), inline: bytes.span.bytes)
            try pair.left.queuePair.post(.read(from: remote), here)
            try pair.left.queuePair.post(.fetchAndAdd(at: remote, adding: 1), here, flags: fenced)
            var left = 5
            while left > 0 {
                if let completion = try pair.left.completions.poll() {
                    try completion.check()
                    left -= 1
                }
            }
            while try pair.right.completions.poll() == nil {}
        }
        try round()  // What is made on first use is made here.
        let count = try allocations { () throws(VerbsError) in
            for _ in 0..<Self.rounds { try round() }
        }
        #expect(count == 0)
    }

    @Test("lists, the extended interfaces, buffers and spans", arguments: Bench.devices)
    func batches(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        var queue = try context.makeCompletionQueue(capacity: 64, fields: .standard)
        var options = QueuePair.CreationOptions()
        options.extendedOperations = .write
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue, options: options)
        try pair.connect(to: try pair.endpoint())
        let (slice, remote) = (try region.slice(0..<8), region.remote)
        var list = SendRequestList(capacity: 16)
        var buffer = WorkCompletionBuffer(capacity: 16)
        var array = [WorkCompletion](repeating: WorkCompletion(), count: 16)
        func round() throws(VerbsError) {
            list.removeAll()
            while !list.isFull { try list.append(.write(to: remote), slice) }
            try pair.post(list)
            var taken = 0
            while taken < 16 { taken += try queue.poll(into: &buffer) }
            try pair.postExtended { (requests) throws(VerbsError) in
                for _ in 0..<8 { try requests.append(.write(to: remote), slice) }
            }
            taken = 0
            while taken < 4 {
                var span = array.mutableSpan
                taken += try queue.poll(into: &span)
            }
            while taken < 8 { taken += try queue.pollExtended { completion in precondition(completion.isSuccess) } }
        }
        try round()
        let count = try allocations { () throws(VerbsError) in
            for _ in 0..<Self.rounds { try round() }
        }
        #expect(count == 0)
    }
}
