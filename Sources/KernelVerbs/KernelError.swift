import CIBVerbs
import CLinux
import ProviderKit

/// A positive errno value that the kernel returned. A newer kernel may return values that this library does not name.
public struct KernelError: Error, RawRepresentable, Equatable, Sendable {
    /// The errno value.
    public var rawValue: Int32

    /// An error with this errno value.
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// An argument is invalid (EINVAL). Thrown by checks before the kernel is called.
    public static var invalidArgument: KernelError { KernelError(rawValue: EINVAL) }
    /// The device or the kernel does not support the operation (EOPNOTSUPP).
    public static var notSupported: KernelError { KernelError(rawValue: EOPNOTSUPP) }

    /// The device was removed, or has failed (EIO).
    public static var deviceGone: KernelError { KernelError(rawValue: EIO) }

    /// EPROTO, explained to the user: the kernel's driver returned no memory for the queue or doorbell, or memory with
    /// an unknown layout. For functions of the control table.
    public static func unknownLayout() -> KernelError {
        KernelError(
            rawValue: refusal(
                EPROTO,
                """
                the kernel's driver gives no memory for the object, or memory of a layout that this provider does not know: \
                update the provider, or use the distribution's library with RDMA_PROVIDER=libibverbs
                """))
    }

    /// Explains to the user the consequence of an mmap(2) error for a shared receive queue that the kernel has resized
    /// already, and throws the same error.
    @inline(__always)
    public static func explainingLoss(_ map: () throws(KernelError) -> Void) throws(KernelError) {
        do throws(KernelError) { try map() } catch {
            _ = refusal(
                error.rawValue,
                """
                the kernel has resized the shared receive queue, but its memory cannot be mapped, so that it accepts no more \
                receives: destroy it and make another one
                """)
            throw error
        }
    }

    /// Throws unless the value is 0.
    @inline(__always)
    static func check(_ value: Int32) throws(KernelError) {
        if value != 0 { throw KernelError(rawValue: value) }
    }
}
