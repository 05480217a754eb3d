import SystemPackage

/// Why a verb failed: which one, with what errno, on which object, and what to try.
public struct VerbsError: Error, Sendable {
    // One reference: an error passes through many hands, and most code only passes it on.
    private let storage: Storage

    private final class Storage: Sendable {
        let verb: Verb
        let errno: Errno
        let object: VerbsObject
        let advice: Advice
        let postedCount: Int
        let status: WorkCompletion.Status?

        init(
            verb: Verb, errno: Errno, object: VerbsObject, advice: Advice, postedCount: Int,
            status: WorkCompletion.Status?
        ) {
            self.verb = verb
            self.errno = errno
            self.object = object
            self.advice = advice
            self.postedCount = postedCount
            self.status = status
        }
    }

    /// An error of `verb` on `object`; `hint` is a sentence that says what to try.
    public init(_ verb: Verb, errno: Errno, object: VerbsObject, hint: String? = nil) {
        self.init(verb, errno, object, hint.map(Advice.text) ?? .general(errno))
    }

    init(
        _ verb: Verb, _ errno: Errno, _ object: VerbsObject, _ advice: Advice, postedCount: Int = 0,
        status: WorkCompletion.Status? = nil
    ) {
        storage = Storage(
            verb: verb, errno: errno, object: object, advice: advice, postedCount: postedCount, status: status)
    }

    /// The verb that failed.
    public var verb: Verb { storage.verb }
    /// What it answered.
    public var errno: Errno { storage.errno }
    /// The object that it was called on.
    public var object: VerbsObject { storage.object }
    /// What a person can try; nil where nothing better is known than what the errno says.
    public var hint: String? { storage.advice.sentence }
    /// After a failed post: how many work requests, from the first on, were taken. They will complete.
    public var postedCount: Int { storage.postedCount }
    /// After `WorkCompletion.check()`: the status of the completion.
    public var completionStatus: WorkCompletion.Status? { storage.status }
}

extension VerbsError: CustomStringConvertible {
    /// One line: `VERB failed on OBJECT: ERRNO; what to try`.
    public var description: String {
        let what = completionStatus.map { "completion status \($0)" } ?? "\(errno.symbol) (\(errno))"
        return "\(verb) failed on \(object): \(what)" + (hint.map { "; \($0)" } ?? "")
    }
}

extension Errno {
    /// The name of the errno values that verbs use, such as `EINVAL`; of others the number.
    package var symbol: String {
        switch self {
        case .notPermitted: "EPERM"
        case .noSuchFileOrDirectory: "ENOENT"
        case .interrupted: "EINTR"
        case .ioError: "EIO"
        case .badFileDescriptor: "EBADF"
        case .resourceTemporarilyUnavailable: "EAGAIN"
        case .noMemory: "ENOMEM"
        case .permissionDenied: "EACCES"
        case .badAddress: "EFAULT"
        case .resourceBusy: "EBUSY"
        case .operationNotSupportedByDevice: "ENODEV"
        case .invalidArgument: "EINVAL"
        case .noSpace: "ENOSPC"
        case .noData: "ENODATA"
        case .overflow: "EOVERFLOW"
        case .protocolError: "EPROTO"
        case .notSupported: "EOPNOTSUPP"
        case .networkUnreachable: "ENETUNREACH"
        case .noRouteToHost: "EHOSTUNREACH"
        case .timedOut: "ETIMEDOUT"
        case .canceled: "ECANCELED"
        default: "errno \(rawValue)"
        }
    }
}
