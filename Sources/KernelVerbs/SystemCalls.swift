import CLinux

/// The two ways by which a command reaches the kernel. A test puts functions of its own here, and simulates a kernel.
public struct SystemCalls: Sendable {
    /// The ioctl of uverbs: descriptor, and a `struct ib_uverbs_ioctl_hdr` with its attributes behind it. 0, or a
    /// positive errno value.
    public var ioctl: @convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32
    /// write(2): descriptor, command, its size in bytes. 0, or a positive errno value.
    public var write: @convention(c) (Int32, UnsafeRawPointer?, Int) -> Int32

    /// Functions in place of the kernel's.
    public init(
        ioctl: @escaping @convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32,
        write: @escaping @convention(c) (Int32, UnsafeRawPointer?, Int) -> Int32
    ) {
        self.ioctl = ioctl
        self.write = write
    }

    /// The kernel of this machine.
    public static var kernel: SystemCalls {
        SystemCalls(ioctl: { linux_uverbs_ioctl($0, $1) }, write: { linux_uverbs_write($0, $1, $2) })
    }
}
