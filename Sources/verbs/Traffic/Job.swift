import Verbs

/// Which queue pairs the two sides make: the client says it, the server follows.
struct Setup: Codable {
    var transport: Transport
    /// The family of the client's address: the server takes one of the same. Nil on InfiniBand.
    var family: AddressFamily?
    /// The largest message of all jobs, in bytes.
    var largestSize: Int
    /// Work requests that are outstanding at a time, at most.
    var window: Int
    /// Whether data is verified: then each receive has a buffer of its own.
    var verify: Bool
}

/// One run over queue pairs that are connected.
struct Job: Codable {
    enum Kind: String, Codable {
        /// One message at a time; how long each takes.
        case latency
        /// As many as the window allows; how many per second.
        case throughput
    }

    var kind: Kind
    var operation: Operation
    /// Payload of a message in bytes.
    var size: Int
    /// Messages, warm-up included; nil: until it is stopped, or `duration` is over.
    var count: UInt64?
    /// In nanoseconds; nil: no limit.
    var duration: UInt64?
    /// Messages at the beginning that are not measured.
    var warmUp: UInt64
    var verify: Bool
    /// Messages outstanding, and how many of them share a completion.
    var window: Int
    var batch: Int
    /// How long a message may take before it counts as lost, or on RC the peer as gone; in nanoseconds.
    var patience: UInt64
}

/// What a side has seen of a job.
struct Tally: Codable, Equatable {
    /// Messages that were sent, or operations that were begun.
    var sent: UInt64 = 0
    /// Messages that came in.
    var received: UInt64 = 0
    /// Messages that were sent and not answered in time.
    var lost: UInt64 = 0
    /// Messages whose every byte was looked at and right.
    var verified: UInt64 = 0
    /// Messages with a byte that was not right.
    var corrupted: UInt64 = 0
    /// The first of those.
    var firstCorruption: Corruption?
}

/// Where data was not what it should be.
struct Corruption: Codable, Equatable {
    var message: UInt64
    /// Place of the first wrong byte, from 0; the size of the message if something beside it was wrong.
    var offset: Int
}

/// What one side needs to know of the other before RDMA works.
struct Party: Codable {
    var endpoint: Endpoint
    var device: String
    var provider: String
    /// The number of the user that it runs as.
    var user: UInt32?

    /// Throws if it is known beforehand that nothing sent would arrive: of two softs on one address, those of one user
    /// find each other.
    func checkReach(of peer: Party) throws(ToolError) {
        guard provider == "soft", peer.provider == "soft", endpoint.gid == peer.endpoint.gid,
            let user, let other = peer.user, user != other
        else { return }
        throw ToolError(
            .unsupported,
            "soft connects processes of one user on a machine: this side is user \(user), the other \(other)",
            hint: "run both sides as the same user")
    }
}

/// What the sides say to each other over the rendezvous, before, between and during jobs.
enum ControlMessage: Codable {
    /// Client, first of all; and again between jobs, for another queue pair in the place of the last.
    case hello(version: Int, setup: Setup, party: Party)
    /// Server: it is connected.
    case welcome(party: Party)
    /// Client: this comes next.
    case begin(job: Job)
    /// Server, in answer: it may begin.
    case ready
    /// Client: the job is done; what it has seen. On RC the server's counter must stand where so many atomics have
    /// brought it.
    case done(tally: Tally)
    /// Server, in answer: what it has seen.
    case counted(tally: Tally)
    /// Client: no more jobs.
    case goodbye
    /// Server: it was interrupted; the client ends the job.
    case stop
    /// Either side has failed.
    case failed(error: ToolError)

    /// The version of this conversation.
    static let version = 2
}

extension Setup {
    /// What a server agrees to, whoever asks. The sizes are what it will allocate.
    func check() throws(ToolError) {
        let sizes = 0...(1 << 30)
        guard sizes.contains(largestSize), (1...4096).contains(window) else {
            throw ToolError(
                .failure, "messages of \(largestSize) bytes, \(window) at a time, are beyond what verbs does",
                hint: "at most 1 GiB at a time, and 4096 messages")
        }
    }
}

extension Job {
    /// How long to wait for so many bytes, unless the user says: there is no network for RDMA of less than 10 MB/s.
    static func patience(_ transport: Transport, byteCount: Int) -> UInt64 {
        Duration.seconds((transport.isReliable ? 10 : 1) + byteCount / 10_000_000).nanoseconds
    }

    /// Messages in all, with those that are not measured.
    static func total(_ count: UInt64, warmUp: UInt64) -> UInt64 { count &+ min(warmUp, .max &- count) }

    /// Whether the queue pairs of `setup` can do it.
    func check(_ setup: Setup) throws(ToolError) {
        guard operation.isPossible(on: setup.transport) else {
            let possible = Operation.allCases.filter { $0.isPossible(on: setup.transport) }.map(\.rawValue)
            throw ToolError(
                .usage, "\(setup.transport.name) has no \(operation.rawValue)",
                hint: "\(setup.transport.name) has \(possible.joined(separator: ", ")); RC has all")
        }
        guard size >= operation.smallestSize(on: setup.transport), size <= setup.largestSize,
            !operation.isAtomic || size == 8
        else {
            throw ToolError(
                .usage, "\(operation.rawValue) over \(setup.transport.name) cannot be of \(size) bytes",
                hint: operation.isAtomic
                    ? "atomics are of 8 bytes"
                    : "take at least \(operation.smallestSize(on: setup.transport)), at most 1G")
        }
        guard (1...setup.window).contains(window), (1...window).contains(batch) else {
            throw ToolError(
                .usage, "a batch of \(batch) in a window of \(window)", hint: "take a batch within the window")
        }
    }
}
