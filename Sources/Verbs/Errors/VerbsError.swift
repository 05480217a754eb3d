import SystemPackage

/// The failure of a verb: the verb, the errno value, the object, and what to try.
public struct VerbsError: Error, Sendable {
    // One reference keeps the error small: most functions only pass it to their caller.
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

    /// An error of `verb` on `object`; `hint` says what to try.
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
    /// The errno that the verb returned.
    public var errno: Errno { storage.errno }
    /// The object that it was called on.
    public var object: VerbsObject { storage.object }
    /// The hint: an action that can resolve the error; nil when there is nothing to add to the errno value.
    public var hint: String? { storage.advice.message }
    /// After a failed post: the number of work requests, from the first, that were posted.
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
    /// The hint for this errno value, for any operation; nil when there is none.
    package var advice: String? { Advice.message(for: self) }

    /// The name of an errno value that verbs use, such as `EINVAL`; the number of any other.
    package var symbol: String {
        switch self {
        case .notPermitted: "EPERM"
        case .noSuchFileOrDirectory: "ENOENT"
        case .interrupted: "EINTR"
        case .ioError: "EIO"
        case .noSuchAddressOrDevice: "ENXIO"
        case .badFileDescriptor: "EBADF"
        case .resourceTemporarilyUnavailable: "EAGAIN"
        case .noMemory: "ENOMEM"
        case .permissionDenied: "EACCES"
        case .badAddress: "EFAULT"
        case .resourceBusy: "EBUSY"
        case .operationNotSupportedByDevice: "ENODEV"
        case .invalidArgument: "EINVAL"
        case .tooManyOpenFilesInSystem: "ENFILE"
        case .tooManyOpenFiles: "EMFILE"
        case .fileTooLarge: "EFBIG"
        case .noSpace: "ENOSPC"
        case .noFunction: "ENOSYS"
        case .noData: "ENODATA"
        case .overflow: "EOVERFLOW"
        case .protocolError: "EPROTO"
        case .notSupported: "EOPNOTSUPP"
        case .addressInUse: "EADDRINUSE"
        case .addressNotAvailable: "EADDRNOTAVAIL"
        case .networkDown: "ENETDOWN"
        case .networkUnreachable: "ENETUNREACH"
        case .noRouteToHost: "EHOSTUNREACH"
        case .timedOut: "ETIMEDOUT"
        case .canceled: "ECANCELED"
        default: "errno \(rawValue)"
        }
    }
}
