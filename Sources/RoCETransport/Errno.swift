/// What a verb answers when it refuses: a value of Linux' errno (`asm-generic/errno-base.h`, `asm-generic/errno.h`).
@frozen
public struct Errno: RawRepresentable, Hashable, Error, Sendable {
    /// The number, as verbs return it.
    public let rawValue: Int32

    /// Any number; 0 means success where a verb returns its errno.
    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Success, for the calls that return an `Errno` instead of throwing it.
    @inlinable public static var success: Errno { Errno(rawValue: 0) }
    /// ENOENT: there is no such object.
    @inlinable public static var noEntry: Errno { Errno(rawValue: 2) }
    /// ENOMEM: the queue is full, or the engine has no place for one more object.
    @inlinable public static var noMemory: Errno { Errno(rawValue: 12) }
    /// EBUSY: other objects still use this one.
    @inlinable public static var busy: Errno { Errno(rawValue: 16) }
    /// EINVAL: an argument, or the state of the object, does not allow the call.
    @inlinable public static var invalid: Errno { Errno(rawValue: 22) }
    /// EOPNOTSUPP: the call is legal and this engine does not implement it.
    @inlinable public static var notSupported: Errno { Errno(rawValue: 95) }
}
