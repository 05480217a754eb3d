import Verbs

/// The loops of CLoops, written with the Swift API.
struct SwiftLoops: ~Copyable {
    var queuePair: QueuePair
    var completions: CompletionQueue
    var buffer = WorkCompletionBuffer(capacity: 16)
    var list = SendRequestList(capacity: 16)
    let sge: ScatterGatherElement
    /// The combined ids of all polled completions.
    var ids: UInt64 = 0

    mutating func postAndPoll(_ rounds: UInt64) throws(VerbsError) -> UInt64 {
        var seen: UInt64 = 0
        for id in 0..<rounds {
            try queuePair.postSend(.send, sge, id: id)
            if let completion = try completions.poll() {
                guard completion.status == .success else { break }
                ids ^= completion.id
                seen += 1
            }
        }
        return seen
    }

    mutating func postAndPoll16(_ rounds: UInt64) throws(VerbsError) -> UInt64 {
        var seen: UInt64 = 0
        for round in 0..<rounds {
            try postChain(16 * round)
            seen += try countSuccesses()
        }
        return seen
    }

    mutating func post(_ count: UInt64) throws(VerbsError) -> UInt64 {
        for id in 0..<count { try queuePair.postSend(.send, sge, id: id) }
        return count
    }

    mutating func post16(_ chains: UInt64) throws(VerbsError) -> UInt64 {
        for chain in 0..<chains { try postChain(16 * chain) }
        return 16 * chains
    }

    mutating func drain(_ count: UInt64) throws(VerbsError) -> UInt64 {
        var seen: UInt64 = 0
        for _ in 0..<count {
            if let completion = try completions.poll() {
                guard completion.status == .success else { break }
                ids ^= completion.id
                seen += 1
            }
        }
        return seen
    }

    mutating func drain16(_ count: UInt64) throws(VerbsError) -> UInt64 {
        var seen: UInt64 = 0
        for _ in 0..<count / 16 { seen += try countSuccesses() }
        return seen
    }
}

extension SwiftLoops {
    @inline(__always)
    private mutating func postChain(_ id: UInt64) throws(VerbsError) {
        list.removeAll()
        let sge = sge
        try list.append(count: 16) { SendRequest(.send, sge, id: id + UInt64($0)) }
        try queuePair.postSend(list)
    }

    @inline(__always)
    private mutating func countSuccesses() throws(VerbsError) -> UInt64 {
        try completions.poll(into: &buffer)
        var seen: UInt64 = 0
        for index in 0..<buffer.count {
            let completion = buffer[index]
            guard completion.status == .success else { break }
            ids ^= completion.id
            seen += 1
        }
        return seen
    }
}
