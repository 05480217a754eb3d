import RoCEWire

/// A slot of a send queue: this, for UD the path, and then the pieces of memory or the inline data.
struct SendEntry {
    var id: UInt64
    var remoteAddress: UInt64
    var compareAdd: UInt64
    var swap: UInt64
    var remoteKey: UInt32
    var immediate: UInt32
    /// Bytes of the message. More than a message can have stands as the largest number there is.
    var length: UInt32
    var remoteQueuePair: UInt32
    var remoteQueueKey: UInt32
    var opcode: UInt8
    var flags: UInt8
    var elementCount: UInt8
    /// From here on the engine's: set when the message is begun.
    var firstPSN = PSN(0)
    /// PSNs that the message takes: packets sent, or for a READ packets that answer it.
    var packets: UInt32 = 0

    static let size = 64

    @inline(__always) var operation: WorkRequestOpcode { WorkRequestOpcode(rawValue: UInt32(opcode)) }
    @inline(__always) var sendFlags: SendFlags { SendFlags(rawValue: UInt32(flags)) }

    /// READs and atomics: what waits for a response that brings data.
    @inline(__always) var isReadOrAtomic: Bool { opcode >= 4 && opcode <= 6 }
    @inline(__always) var isRead: Bool { opcode == 4 }
    @inline(__always) var isSend: Bool { opcode == 2 || opcode == 3 }
    @inline(__always) var hasImmediate: Bool { opcode == 1 || opcode == 3 }

    var completionOpcode: CompletionOpcode {
        switch operation {
        case .write, .writeWithImmediate: .write
        case .read: .read
        case .compareSwap: .compareSwap
        case .fetchAdd: .fetchAdd
        default: .send
        }
    }
}

/// A slot of a receive queue: this, and then the pieces of memory.
struct ReceiveEntry {
    var id: UInt64
    var elementCount: UInt32
    var length: UInt32

    static let size = 16
}
