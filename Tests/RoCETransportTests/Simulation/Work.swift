import Glibc
import RoCETransport

/// What is wrong with a work request on purpose, and how it must end.
enum Fault {
    case localKey, remoteKey, remoteRange, alignment, receiveTooSmall, receiveKey

    /// How the sender's work request ends.
    var status: CompletionStatus {
        switch self {
        case .localKey: .localProtectionError
        case .remoteKey, .remoteRange: .remoteAccessError
        case .alignment, .receiveTooSmall: .remoteInvalidRequest
        case .receiveKey: .remoteOperationError
        }
    }

    /// What the responder reports.
    var event: AsyncEventType? {
        switch self {
        case .remoteKey, .remoteRange: .accessError
        case .alignment: .requestError
        default: nil
        }
    }

    /// How the responder's receive ends.
    var receiveStatus: CompletionStatus? {
        switch self {
        case .receiveTooSmall: .localLengthError
        case .receiveKey: .localProtectionError
        default: nil
        }
    }
}

/// A work request of a simulation, with what its memory holds and where.
struct Work {
    var opcode: WorkRequestOpcode
    var flags: SendFlags
    var size: Int
    /// SEND, WRITE: what is sent. READ, atomics: where the answer goes, in pieces.
    var pieces: [UnsafeMutableRawBufferPointer]
    /// SEND, WRITE: the same bytes, where nobody touches them.
    var payload: UnsafeRawBufferPointer
    /// Offset in the stream's window, or for an atomic in its words.
    var remoteOffset: Int
    var immediate: UInt32
    var compareAdd: UInt64
    var swap: UInt64
    var fault: Fault?
    /// Atomics: what the answer must be.
    var original: UInt64 = 0

    var isWrite: Bool { opcode == .write || opcode == .writeWithImmediate }
    var isSend: Bool { opcode == .send || opcode == .sendWithImmediate }
    var isAtomic: Bool { opcode == .compareSwap || opcode == .fetchAdd }
    var takesReceive: Bool { isSend || opcode == .writeWithImmediate }
    var hasImmediate: Bool { opcode == .sendWithImmediate || opcode == .writeWithImmediate }
}

/// The simulated world broke a promise.
struct Violation: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func require(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw Violation(message()) }
}

/// Bytes that are taken one after the other and given back all at once.
final class Arena {
    let bytes: UnsafeMutableRawBufferPointer
    private var used = 0

    init(_ byteCount: Int) {
        // calloc: untouched pages cost nothing, and there are many simulations.
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
