import CAllocationCounter
import SystemPackage
import Testing
import Verbs

/// The number of allocations of `body` on this thread, the minimum of several runs: a thread that polls soft also
/// forwards packets for other processes of this machine, and allocates memory for the first packet of each.
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
    .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
struct AllocationTests {
    private static let rounds = 200

    @Test("the counter counts an allocation")
    func counter() throws {
        let count = try allocations { () throws(VerbsError) in
            withExtendedLifetime([UInt8](repeating: 1, count: Int.random(in: 1000...2000))) {}
        }
        #expect(count >= 1)
    }

    @Test("single posts of every form, single polls and receives allocate nothing", arguments: Bench.devices)
    func single(device: String) throws {
        var pair = try Pair(Bench.open(device), .reliableConnection, .init(maxSendSGE: 2, maxInlineData: 16))
        let (here, there) = (try pair.left.region.sge(0..<8), try pair.right.region.sge(0..<64))
        let (remote, bytes) = (pair.right.region.remote, [1, 2, 3, 4] as [UInt8])
        let sgList = [here, here]
        // Outside the loop: without optimisation a set literal with two members allocates an array.
        let fenced: SendFlags = [.signaled, .fence]
        func round() throws(VerbsError) {
            try pair.right.queuePair.postReceive(there, id: 1)
            try pair.left.queuePair.postSend(.send, here)
            try pair.left.queuePair.postSend(.write(to: remote), sgList: sgList.span)
            try pair.left.queuePair.postSend(.write(to: remote), inline: bytes.span.bytes)
            try pair.left.queuePair.postSend(.read(from: remote), here)
            try pair.left.queuePair.postSend(.fetchAndAdd(at: remote, adding: 1), here, flags: fenced)
            var left = 5
            while left > 0 {
                if let completion = try pair.left.completions.poll() {
                    try completion.check()
                    left -= 1
                }
            }
            while try pair.right.completions.poll() == nil {}
        }
        try round()  // Allocations on first use happen here.
        let count = try allocations { () throws(VerbsError) in
            for _ in 0..<Self.rounds { try round() }
        }
        #expect(count == 0)
    }

    @Test("lists, the extended interfaces, buffers and spans allocate nothing", arguments: Bench.devices)
    func batches(device: String) throws {
        let context = try Bench.open(device)
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        var queue = try context.makeCompletionQueue(capacity: 64, fields: .standard)
        var options = QueuePair.CreationOptions()
        options.extendedOperations = .write
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue, options: options)
        try pair.connect(to: try pair.endpoint())
        let (sge, remote) = (try region.sge(0..<8), region.remote)
        var list = SendRequestList(capacity: 16)
        var buffer = WorkCompletionBuffer(capacity: 16)
        var array = [WorkCompletion](repeating: WorkCompletion(), count: 16)
        func round() throws(VerbsError) {
            list.removeAll()
            while !list.isFull { try list.append(.write(to: remote), sge) }
            try pair.postSend(list)
            var polled = 0
            while polled < 16 { polled += try queue.poll(into: &buffer) }
            try pair.postExtended { (requests) throws(VerbsError) in
                for _ in 0..<8 { try requests.append(.write(to: remote), sge) }
            }
            polled = 0
            while polled < 4 {
                var span = array.mutableSpan
                polled += try queue.poll(into: &span)
            }
            while polled < 8 { polled += try queue.pollExtended { completion in precondition(completion.isSuccess) } }
        }
        try round()
        let count = try allocations { () throws(VerbsError) in
            for _ in 0..<Self.rounds { try round() }
        }
        #expect(count == 0)
    }
}
