import ArgumentParser

/// The operation that transfers a message.
enum Operation: String, Codable, CaseIterable, ExpressibleByArgument {
    case send
    case sendImmediate = "send-imm"
    case write
    case writeImmediate = "write-imm"
    case read
    case fetchAndAdd = "fetch-add"
    case compareAndSwap = "compare-swap"
    case atomicWrite = "atomic-write"
    /// A WRITE, and a FLUSH of the range that was written, whose completion is that of the message.
    case flush
    /// The sender binds a memory window of type 2 and sends its rkey with the message. The receiver writes the answer
    /// through the window, and ends its binding by a SEND with invalidate.
    case window

    /// Whether the peer's program receives each message and answers it. Otherwise the peer's device executes the
    /// operation alone, and the measured time ends with the completion.
    var involvesPeer: Bool {
        switch self {
        case .send, .sendImmediate, .write, .writeImmediate, .atomicWrite, .flush, .window: true
        case .read, .fetchAndAdd, .compareAndSwap: false
        }
    }

    /// Whether a message consumes a receive work request of the peer.
    var consumesReceive: Bool {
        switch self {
        case .send, .sendImmediate, .writeImmediate, .window: true
        case .write, .read, .fetchAndAdd, .compareAndSwap, .atomicWrite, .flush: false
        }
    }

    /// Whether the message has immediate data: the low 32 bits of its number. That of `window` is an rkey.
    var hasImmediate: Bool { self == .sendImmediate || self == .writeImmediate }

    /// Whether the operation is atomic and returns the original value.
    var isAtomic: Bool { self == .fetchAndAdd || self == .compareAndSwap }

    /// Whether the size of a message is always 8 bytes.
    var hasEightBytes: Bool { isAtomic || self == .atomicWrite }

    /// Whether a message arrives in memory that the receiver's program polls.
    var isWritten: Bool { self == .write || self == .atomicWrite || self == .flush }

    /// The smallest size of a message. An empty message cannot be detected in memory, and on UC and UD, where messages
    /// can be lost, it does not show its number.
    func smallestSize(on transport: Transport) -> Int {
        switch self {
        case .send, .sendImmediate: transport.isReliable ? 0 : 1
        case .write, .writeImmediate, .read, .flush, .window: 1
        case .fetchAndAdd, .compareAndSwap, .atomicWrite: 8
        }
    }

    /// Whether the transport service supports the operation (IBTA volume 1, table 38).
    func isSupported(on transport: Transport) -> Bool {
        switch transport {
        case .rc: true
        case .uc: involvesPeer && !isOptional
        case .xrc: !isOptional
        case .ud: self == .send || self == .sendImmediate
        }
    }

    /// Whether every iWARP adapter supports the operation (RFC 5040): none has immediate data or atomics there.
    var isOfIWARP: Bool { !hasImmediate && !hasEightBytes && !isOptional }

    /// Whether only some devices have the operation.
    var isOptional: Bool { self == .atomicWrite || self == .flush || self == .window }

    /// Whether the requests are posted with the functions of `ibv_qp_ex`: `ibv_post_send` has no such operation.
    var isExtended: Bool { self == .atomicWrite || self == .flush }
}

/// The transport service of the queue pairs.
enum Transport: String, Codable, CaseIterable, ExpressibleByArgument {
    case rc, uc, ud, xrc

    /// The name in the specification.
    var name: String { rawValue.uppercased() }

    /// Whether the loss of a message is an error.
    var isReliable: Bool { self == .rc || self == .xrc }

    /// Whether only some devices have the transport service.
    var isOptional: Bool { self == .xrc }
}

/// The family of the IP addresses that GIDs represent.
enum AddressFamily: String, Codable, EnumerableFlag {
    case ipv4, ipv6

    static func help(for value: AddressFamily) -> ArgumentHelp? {
        switch value {
        case .ipv4: "Use a GID that maps an IPv4 address."
        case .ipv6: "Use a GID that is an IPv6 address."
        }
    }
}
