import CIBVerbs
import CLinux

/// A positive errno value, as the kernel answered it. Open: a newer kernel may answer others.
public struct KernelError: Error, RawRepresentable, Equatable, Sendable {
    /// The errno value.
    public var rawValue: Int32

    /// An error of this errno value.
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// An argument that the kernel would not get to see (EINVAL).
    public static var invalidArgument: KernelError { KernelError(rawValue: EINVAL) }
    /// The device or the kernel cannot do that (EOPNOTSUPP).
    public static var notSupported: KernelError { KernelError(rawValue: EOPNOTSUPP) }

    /// The device was removed, or has failed (EIO).
    public static var deviceGone: KernelError { KernelError(rawValue: EIO) }

    /// Throws unless the value is 0.
    @inline(__always)
    static func check(_ value: Int32) throws(KernelError) {
        if value != 0 { throw KernelError(rawValue: value) }
    }
}
