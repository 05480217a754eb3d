import Foundation
import Verbs

/// What the controller tells a peer: one line of JSON on its standard input.
struct Command: Codable {
    enum Kind: String, Codable {
        /// Makes the queue pairs and memory of an epoch. Answer: `opened`.
        case open
        /// Connects them to the other peer's. Answer: `connected`.
        case connect
        /// Begins to send. Answer: `allFailed`, if that comes to pass.
        case run
        /// Deregisters the target memory of a lane, or takes the peer's rights to it. Answers: `tried` at once, and
        /// `revoked` when it has succeeded.
        case revoke
        /// Destroys the queue pair of a lane. Answer: `destroyed`.
        case destroy
        /// Stops sending. Answer: `drained`, when no request is outstanding.
        case halt
        /// Answer: `report`.
        case report
        /// Ends the process.
        case quit
    }

    var kind: Kind
    var epoch: Epoch?
    var endpoints: [Endpoint]?
    var lane: Int?
}

/// The settings of an epoch: the time from connecting two peers until their queue pairs are destroyed.
struct Epoch: Codable {
    var number: UInt64
    var lanes: Int
    /// Outstanding requests of a lane.
    var depth: Int
    /// Messages of 64 KiB to 1 MiB only.
    var large = false
    /// `ibv_qp_attr.retry_cnt`.
    var retries: UInt8 = 7
    /// Whether all lanes add to one word of the peer, which the peer's processor does too.
    var hasSharedWord = false
    /// Which of the two peers sends nothing (0 or 1); nil when both send.
    var passive: Int?
    /// Which peers wait for completion events instead of polling.
    var sleeps: [Bool]
}

/// What a peer answers: one line of JSON on its standard output.
struct Answer: Codable {
    enum Kind: String, Codable {
        /// The device is open.
        case ready
        /// The device could not be opened under this process's limits; it ends with status 3.
        case refused
        case opened, connected, allFailed, tried, revoked, destroyed, drained, report
        /// A broken promise: wrong data, a wrong status, or a verb that failed. The process ends with status 1.
        case failure
    }

    var kind: Kind
    var endpoints: [Endpoint]?
    var lane: Int?
    var report: Report?
    var text: String?
}

/// What a peer has seen in an epoch.
struct Report: Codable {
    struct Lane: Codable {
        var sendsPosted = 0
        var sendsCompleted = 0
        var sendsReceived = 0
        var writesPosted = 0
        var writesCompleted = 0
        var writesReceived = 0
        /// The status of the first request that failed (`ibv_wc_status`); 0 for none.
        var status: UInt32 = 0
        /// The word in this peer's memory to which the other peer adds; nil when the memory was revoked.
        var word: UInt64?
        /// The sum of the increments of completed requests to the other peer's word, and those of the failed requests
        /// in the order in which they were posted.
        var added: UInt64 = 0
        var doubtful: [UInt64] = []
        /// The sum of the increments of completed requests to the shared word of the other peer.
        var addedToShared: UInt64 = 0
    }

    var lanes: [Lane] = []
    /// The word in this peer's memory to which all lanes and this processor add.
    var sharedWord: UInt64 = 0
    /// What this processor has added to it.
    var addedByProcessor: UInt64 = 0
    var operations = 0
    var bytes = 0
    /// Deregistrations that were refused with EBUSY at first.
    var busy = 0
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Reads lines from a descriptor, which may be non-blocking.
struct LineReader {
    let descriptor: Int32
    private var bytes: [UInt8] = []
    private(set) var hasEnded = false

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    /// The next line that has arrived. `isReadable` says whether read(2) would not block.
    mutating func line(isReadable: Bool) -> String? {
        if let line = takeLine() { return line }
        guard isReadable else { return nil }
        var room = [UInt8](repeating: 0, count: 65536)
        let count = read(descriptor, &room, room.count)
        if count > 0 { bytes += room[..<count] } else if count == 0 { hasEnded = true }
        return takeLine()
    }

    private mutating func takeLine() -> String? {
        guard let end = bytes.firstIndex(of: 10) else { return nil }
        defer { bytes.removeFirst(end + 1) }
        return String(decoding: bytes[..<end], as: UTF8.self)
    }
}

func encoded(_ value: some Encodable) throws -> [UInt8] {
    var line = [UInt8](try JSONEncoder().encode(value))
    line.append(10)
    return line
}

func decoded<Value: Decodable>(_ type: Value.Type, _ line: String) throws -> Value {
    try JSONDecoder().decode(type, from: Data(line.utf8))
}

/// Whether a descriptor can be read within that time; -1 waits without limit.
func isReadable(_ descriptor: Int32, milliseconds: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, milliseconds) > 0
}
