import ArgumentParser

/// What a message is moved with.
enum Operation: String, Codable, CaseIterable, ExpressibleByArgument {
    case send
    case sendImmediate = "send-imm"
    case write
    case writeImmediate = "write-imm"
    case read
    case fetchAndAdd = "fetch-add"
    case compareAndSwap = "compare-swap"

    /// Whether the peer's program takes part: it gets each message and answers with one of its own. Otherwise its
    /// device alone does the work, and the round trip ends with the completion.
    var involvesPeer: Bool {
        switch self {
        case .send, .sendImmediate, .write, .writeImmediate: true
        case .read, .fetchAndAdd, .compareAndSwap: false
        }
    }

    /// Whether a message takes a receive of the peer.
    var consumesReceive: Bool {
        switch self {
        case .send, .sendImmediate, .writeImmediate: true
        case .write, .read, .fetchAndAdd, .compareAndSwap: false
        }
    }

    /// Whether 32 bits go beside the data: the low ones of the message's number.
    var hasImmediate: Bool { self == .sendImmediate || self == .writeImmediate }

    /// Whether it works on 8 bytes and no other size.
    var isAtomic: Bool { self == .fetchAndAdd || self == .compareAndSwap }

    /// The smallest message: an empty one cannot be seen in memory, nor be told from another where some are lost.
    func smallestSize(on transport: Transport) -> Int {
        switch self {
        case .send, .sendImmediate: transport.isReliable ? 0 : 1
        case .write, .writeImmediate, .read: 1
        case .fetchAndAdd, .compareAndSwap: 8
        }
    }

    /// Whether the transport service has it (IBTA volume 1, table 38).
    func isPossible(on transport: Transport) -> Bool {
        switch transport {
        case .rc: true
        case .uc: involvesPeer
        case .ud: self == .send || self == .sendImmediate
        }
    }
}

/// The transport service of the queue pairs.
enum Transport: String, Codable, CaseIterable, ExpressibleByArgument {
    case rc, uc, ud

    /// As the specification writes it.
    var name: String { rawValue.uppercased() }

    /// Whether every message arrives, or its loss is an error.
    var isReliable: Bool { self == .rc }
}

/// The family of the addresses that GIDs stand for.
enum AddressFamily: String, Codable, EnumerableFlag {
    case ipv4, ipv6

    static func help(for value: AddressFamily) -> ArgumentHelp? {
        switch value {
        case .ipv4: "Use a GID that stands for an IPv4 address."
        case .ipv6: "Use a GID that is an IPv6 address."
        }
    }
}
