import CIBVerbs

/// The error of a verb: a value of errno(3).
@frozen
public struct Errno: RawRepresentable, Hashable, Error, Sendable {
    /// The errno value, as verbs return it.
    public let rawValue: Int32

    /// Creates an error from any errno value; 0 is success.
    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Success: errno 0, for functions that return an `Errno` instead of throwing it.
    @inlinable public static var success: Errno { Errno(rawValue: 0) }
    /// ENOENT: the object does not exist.
    @inlinable public static var noEntry: Errno { Errno(rawValue: ENOENT) }
    /// ENOMEM: the queue is full, or the engine has as many objects as it can have.
    @inlinable public static var noMemory: Errno { Errno(rawValue: ENOMEM) }
    /// EBUSY: other objects still use this one.
    @inlinable public static var busy: Errno { Errno(rawValue: EBUSY) }
    /// EINVAL: an argument, or the state of the object, does not allow the call.
    @inlinable public static var invalid: Errno { Errno(rawValue: EINVAL) }
    /// EFAULT: a range is not inside its memory region.
    @inlinable public static var fault: Errno { Errno(rawValue: EFAULT) }
    /// EPERM: the object belongs to another protection domain, or does not allow the access.
    @inlinable public static var notPermitted: Errno { Errno(rawValue: EPERM) }
    /// EOPNOTSUPP: the engine does not implement the call.
    @inlinable public static var notSupported: Errno { Errno(rawValue: EOPNOTSUPP) }
}
