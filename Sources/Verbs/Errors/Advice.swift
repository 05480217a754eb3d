import CLinux
import SystemPackage

/// What to try, kept as small values: an error on the data path must not cost a text that nobody reads.
enum Advice: Sendable {
    case none
    case text(String)
    case general(Errno)
    case completion(WorkCompletion.Status)
    case sendQueueFull(depth: UInt32)
    case receiveQueueFull(depth: UInt32)
    case tooManySlices(given: Int32, limit: UInt32)
    case inlineTooLong(given: UInt32, limit: UInt32)
    case cannotSend(in: QueuePair.State)
    case cannotReceive(in: QueuePair.State)
    case operation(SendOperation.Opcode, unfitFor: QueuePair.Kind)
    case memoryLock

    /// The sentence for a person.
    var sentence: String? {
        switch self {
        case .none: nil
        case .text(let text): text
        case .general(let errno): Advice.sentence(for: errno)
        case .completion(let status): status.advice
        case .sendQueueFull(let depth):
            "the send queue holds \(depth) work requests and is full: poll completions first; an unsignaled request"
                + " frees its place when a later signaled one completes"
        case .receiveQueueFull(let depth):
            "the receive queue holds \(depth) work requests and is full: poll completions first"
        case .tooManySlices(let given, let limit):
            "\(given) slices, but the queue was made for \(limit): make it with more, or gather the data first"
        case .inlineTooLong(let given, let limit):
            "\(given) bytes inline, but the queue pair was made for \(limit): make it with more, or send from a"
                + " registered region"
        case .cannotSend(let state): "the queue pair is in state \(state): sending needs RTS"
        case .cannotReceive(let state): "the queue pair is in state \(state): receiving needs INIT or a later state"
        case .operation(let opcode, let kind): "a queue pair of type \(kind) cannot do \(opcode)"
        case .memoryLock: Advice.memoryLockSentence()
        }
    }

    /// Why a queue of `depth` work requests, each of at most `limit` slices, refused a receive.
    static func receive(_ errno: Errno, slices: Int, limit: UInt32, depth: UInt32) -> Advice {
        if slices > Int(limit) { return .tooManySlices(given: Int32(clamping: slices), limit: limit) }
        return errno == .noMemory ? .receiveQueueFull(depth: depth) : .general(errno)
    }

    /// What an errno value means for every verb.
    static func sentence(for errno: Errno) -> String? {
        switch errno {
        case .notSupported:
            "this device or its provider cannot do that; `verbs info` lists what it can"
        case .ioError, .operationNotSupportedByDevice:
            "the device has failed or was removed: close everything that belongs to it and open it again"
        case .resourceBusy: "something still uses the object: destroy that first"
        case .permissionDenied, .notPermitted:
            "the process may not do that: see the permissions of /dev/infiniband, or run `verbs doctor`"
        case .noMemory: "no memory is left, or a limit of the device is reached: see the device's attributes"
        case .networkUnreachable, .noRouteToHost, .timedOut:
            "the peer's GID does not resolve to a neighbour: check the address, the route and the link"
        default: nil
        }
    }

    /// Registered memory is pinned, and counts against RLIMIT_MEMLOCK.
    private static func memoryLockSentence() -> String {
        let limit = linux_memlock_limit()
        guard limit != .max else {
            return "no memory is left to pin, or a limit of the device is reached: register less"
        }
        return "RLIMIT_MEMLOCK is \(byteText(limit)): raise it with `ulimit -l` or LimitMEMLOCK=,"
            + " or register less"
    }

    /// A number of bytes in the largest unit that divides it.
    static func byteText(_ bytes: UInt64) -> String {
        let units: [(UInt64, String)] = [(30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        for (size, unit) in units where bytes >= size && bytes % size == 0 { return "\(bytes / size) \(unit)" }
        return "\(bytes) bytes"
    }
}
