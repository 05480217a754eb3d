import CLinux
import SystemPackage

/// The hint of an error, as small values: most errors of the data path are never printed, so they must not format text.
enum Advice: Sendable {
    case none
    case text(String)
    case general(Errno)
    case completion(WorkCompletion.Status)
    case sendQueueFull(depth: UInt32)
    case receiveQueueFull(depth: UInt32)
    case tooManySGEs(given: Int32, limit: UInt32)
    case inlineTooLong(given: UInt32, limit: UInt32)
    case cannotSend(in: QueuePair.State)
    case cannotReceive(in: QueuePair.State)
    case operation(SendOperation.Opcode, unfitFor: QueuePairType)
    case operationUnknownToIWARP(SendOperation.Opcode)
    case memoryLock

    /// The text of the hint.
    var message: String? {
        switch self {
        case .none: nil
        case .text(let text): text
        case .general(let errno): Advice.message(for: errno)
        case .completion(let status): status.advice
        case .sendQueueFull(let depth):
            "the send queue holds \(depth) work requests and is full: poll completions first; an unsignaled request"
                + " frees its place when a later signaled one completes"
        case .receiveQueueFull(let depth):
            "the receive queue holds \(depth) work requests and is full: poll completions first"
        case .tooManySGEs(let given, let limit):
            "\(given) SGEs, but the queue was made for \(limit): make it with more, or gather the data first"
        case .inlineTooLong(let given, let limit):
            "\(given) bytes inline, but the queue pair was made for \(limit): make it with more, or send from a"
                + " registered region"
        case .cannotSend(let state): "the queue pair is in state \(state): sending needs RTS"
        case .cannotReceive(let state): "the queue pair is in state \(state): receiving needs INIT or a later state"
        case .operation(let opcode, let kind): "a queue pair of type \(kind) cannot do \(opcode)"
        case .operationUnknownToIWARP(let opcode):
            "this is an iWARP device, which has no \(opcode): iWARP has SEND, RDMA WRITE and RDMA READ, without"
                + " immediate data and without atomics"
        case .memoryLock: Advice.memoryLockSentence()
        }
    }

    /// The cause for which a queue of `depth` work requests, each of at most `limit` SGEs, refused a receive.
    static func receive(_ errno: Errno, sgeCount: Int, limit: UInt32, depth: UInt32) -> Advice {
        if sgeCount > Int(limit) { return .tooManySGEs(given: Int32(clamping: sgeCount), limit: limit) }
        return errno == .noMemory ? .receiveQueueFull(depth: depth) : .general(errno)
    }

    /// The hint for an errno value, valid for all verbs.
    static func message(for errno: Errno) -> String? {
        switch errno {
        case .notSupported:
            "this device or its provider cannot do that; `verbs info` lists what it can"
        case .ioError, .operationNotSupportedByDevice:
            "the device has failed or was removed: close everything that belongs to it and open it again"
        case .resourceBusy: "something still uses the object: destroy that first"
        case .notPermitted where linux_is_forked_child(): Context.childAdvice
        case .permissionDenied, .notPermitted:
            "the process may not do that: `verbs doctor` looks at the permissions of devices and at what a sandbox"
                + " forbids"
        case .tooManyOpenFiles:
            "the process has all descriptors open that it may (RLIMIT_NOFILE is \(linux_descriptor_limit())): raise it"
                + " with `ulimit -n` or LimitNOFILE=, or close some"
        case .tooManyOpenFilesInSystem:
            "all descriptors of the system are in use: raise fs.file-max with sysctl, or end programs that hold many"
        case .noFunction:
            "the kernel lacks a system call, or a sandbox forbids it: `verbs doctor` looks for what is forbidden"
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
            return "no memory is left to pin, or a limit of the device is reached: register less, or compare with"
                + " maxMemoryRegions and maxRegionByteCount of the device's attributes"
        }
        return "RLIMIT_MEMLOCK is \(byteText(limit)): raise it with `ulimit -l` or LimitMEMLOCK=,"
            + " or register less"
    }

    /// A number of bytes in the largest unit that divides it.
    static func byteText(_ bytes: UInt64) -> String {
        // No table of (size, unit): the compiler ordered its instructions differently from build to build.
        let power = bytes == 0 ? 0 : min(bytes.trailingZeroBitCount / 10, 3)
        return "\(bytes >> UInt64(10 * power)) \(["bytes", "KiB", "MiB", "GiB"][power])"
    }
}
