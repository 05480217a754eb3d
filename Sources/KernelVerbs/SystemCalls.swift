import CLinux

/// The two system calls that execute uverbs commands. A test replaces them to simulate a kernel.
public struct SystemCalls: Sendable {
    /// ioctl(2) with RDMA_VERBS_IOCTL: the descriptor, and a `struct ib_uverbs_ioctl_hdr` followed by its attributes.
    /// Returns 0, or a positive errno value.
    public var ioctl: @convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32
    /// write(2): the descriptor, the command, its size in bytes. Returns 0, or a positive errno value.
    public var write: @convention(c) (Int32, UnsafeRawPointer?, Int) -> Int32

    /// Replacements for the system calls.
    public init(
        ioctl: @escaping @convention(c) (Int32, UnsafeMutableRawPointer?) -> Int32,
        write: @escaping @convention(c) (Int32, UnsafeRawPointer?, Int) -> Int32
    ) {
        self.ioctl = ioctl
        self.write = write
    }

    /// The system calls of this machine's kernel.
    public static var kernel: SystemCalls {
        SystemCalls(ioctl: { linux_uverbs_ioctl($0, $1) }, write: { linux_uverbs_write($0, $1, $2) })
    }
}
