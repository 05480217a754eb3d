import Glibc
import RoCETransport

/// A deliberate fault of a work request, and its expected result.
enum Fault {
    case localKey, rkey, remoteRange, alignment, receiveTooSmall, receiveKey

    /// The status of the sender's work request.
    var status: CompletionStatus {
        switch self {
        case .localKey: .localProtectionError
        case .rkey, .remoteRange: .remoteAccessError
        case .alignment, .receiveTooSmall: .remoteInvalidRequestError
        case .receiveKey: .remoteOperationError
        }
    }

    /// The asynchronous event of the responder.
    var event: AsyncEventType? {
        switch self {
        case .rkey, .remoteRange: .accessError
        case .alignment: .requestError
        default: nil
        }
    }

    /// The status of the responder's receive.
    var receiveStatus: CompletionStatus? {
        switch self {
        case .receiveTooSmall: .localLengthError
        case .receiveKey: .localProtectionError
        default: nil
        }
    }
}

/// A work request of a simulation, with its memory and data.
struct Work {
    var opcode: WorkRequestOpcode
    var flags: SendFlags
    var size: Int
    /// The memory of its SGEs: the data of a SEND or WRITE, the buffers of a READ or atomic.
    var buffers: [UnsafeMutableRawBufferPointer]
    /// SEND, WRITE: a copy of the data, which is not changed.
    var payload: UnsafeRawBufferPointer
    /// Offset in the stream's window, or for an atomic and an ATOMIC WRITE in its words.
    var remoteOffset: Int
    /// The immediate data, or the key that is invalidated.
    var immediate: UInt32
    /// The key of a bind.
    var windowKey: UInt32 = 0
    /// Atomics: the operands. FLUSH: the length of the range and the placement type (`SendWQE.flush`).
    var compareAdd: UInt64
    var swap: UInt64
    var fault: Fault?
    /// XRC: the index of the shared receive queue that it names, in `ReliableStream.queues`.
    var queue = 0
    /// Atomics: the expected original value.
    var original: UInt64 = 0

    var isWrite: Bool { opcode == .write || opcode == .writeWithImmediate }
    var isSend: Bool { opcode == .send || opcode == .sendWithImmediate || opcode == .sendWithInvalidate }
    /// Whether it is executed without a packet.
    var isLocal: Bool { opcode == .bindMemoryWindow || opcode == .localInvalidate }
    var isAtomic: Bool { opcode == .compareAndSwap || opcode == .fetchAndAdd }
    var isAtomicWrite: Bool { opcode == .atomicWrite }
    var takesReceive: Bool { isSend || opcode == .writeWithImmediate }
    var hasImmediate: Bool { opcode == .sendWithImmediate || opcode == .writeWithImmediate }
}

/// Memory that is allocated in parts and freed all at once.
final class Arena {
    let bytes: UnsafeMutableRawBufferPointer
    private var used = 0

    init(_ byteCount: Int) {
        // calloc: pages that are not accessed cost nothing, and there are many simulations.
        bytes = UnsafeMutableRawBufferPointer(start: calloc(byteCount, 1)!, count: byteCount)
    }

    deinit { free(bytes.baseAddress) }

    func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        precondition(used + count <= bytes.count, "the simulation needs a larger arena")
        let part = UnsafeMutableRawBufferPointer(rebasing: bytes[used..<used + count])
        used += (count + 7) & ~7
        return part
    }
}
