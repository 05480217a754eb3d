import CLinux
import Glibc
import SystemPackage

/// The result of trying a system call or resource that devices need.
struct SystemProbe: Sendable {
    /// The system call with its manual page, such as `eventfd(2)`.
    var call: String
    /// The error; nil: it succeeded.
    var error: Errno?
    /// The fallback if it fails; nil: no device works without it.
    var fallback: String?

    /// What the user can try if it fails with `error`.
    func hint(for error: Errno) -> String {
        switch error {
        case .notPermitted, .permissionDenied, .noFunction:
            "allow the call in the sandbox: a seccomp profile (docker run --security-opt seccomp=FILE), systemd's"
                + " SystemCallFilter= and RestrictAddressFamilies=, or a security module"
        case .resourceTemporarilyUnavailable:
            "raise the limit of threads (ulimit -u, TasksMax= in the service's unit, or pids.max of the control group) or of"
                + " the address space, which holds the threads' stacks (ulimit -v)"
        case .noMemory, .noSpace: "raise the memory limit: ulimit -v, MemoryMax= in the service's unit"
        case .fileTooLarge:
            "raise the file size limit to 516 KiB or more: ulimit -f, LimitFSIZE= in the service's unit"
        case .tooManyOpenFilesInSystem: "raise the system-wide limit of open files: sysctl fs.file-max"
        default: "see this error in the manual page of the call"
        }
    }

    /// Tries every call on this machine.
    static func all() -> [SystemProbe] {
        [
            SystemProbe(call: "socket(2) for UDP", error: ofDescriptor(socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0))),
            SystemProbe(
                call: "socket(2) of AF_UNIX, for processes of this machine,",
                error: ofDescriptor(socket(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue), 0)),
                fallback:
                    "packets to other processes of this machine go over UDP, which reaches one process for each"
                    + " address"),
            SystemProbe(call: "ioctl(2) on network interfaces, netdevice(7),", error: ofInterfaces()),
            SystemProbe(call: "eventfd(2)", error: ofDescriptor(linux_eventfd())),
            SystemProbe(call: "timerfd_create(2)", error: ofDescriptor(linux_timer())),
            SystemProbe(
                call: "shared memory of 516 KiB, memfd_create(2),", error: ofSharedMemory(),
                fallback: "packets to other processes of this machine go through sockets, more slowly"),
            SystemProbe(call: "starting a thread, clone(2),", error: ofThread()),
        ]
    }

    /// The number of file descriptors that can still be opened if two open devices need more; nil: there are enough.
    static func freeDescriptors() -> Int? {
        let enough = 32
        var opened: [Int32] = []
        while opened.count < enough {
            let descriptor = dup(STDERR_FILENO)
            if descriptor < 0 { break }
            opened.append(descriptor)
        }
        let isOut = opened.count < enough && errno == EMFILE
        for descriptor in opened { close(descriptor) }
        return isOut ? opened.count : nil
    }

    /// Converts a result: a descriptor, which is closed, -1 with errno, or a negative errno value.
    private static func ofDescriptor(_ result: Int32) -> Errno? {
        if result == -1 { return Errno(rawValue: errno) }
        if result < 0 { return Errno(rawValue: -result) }
        close(result)
        return nil
    }

    /// Looks for the interface `lo`; ENODEV counts as success, since the call itself worked.
    private static func ofInterfaces() -> Errno? {
        var interface = linux_interface()
        let code = linux_find_interface("lo", &interface)
        return code == 0 || code == ENODEV ? nil : Errno(rawValue: code)
    }

    private static func ofSharedMemory() -> Errno? {
        let size = 516 << 10
        var descriptor: Int32 = -1
        var memory: UnsafeMutableRawPointer?
        let code = linux_make_shared_memory("verbs doctor", size, &descriptor, &memory)
        guard code == 0 else { return Errno(rawValue: code) }
        linux_unmap(memory, size)
        close(descriptor)
        return nil
    }

    private static func ofThread() -> Errno? {
        guard let thread = linux_start_thread("doctor", { _ in }, nil) else { return Errno(rawValue: linux_errno()) }
        linux_join_thread(thread)
        return nil
    }
}
