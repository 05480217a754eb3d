import CNetlink
import Glibc

/// An error of a request to the kernel over netlink: the request, the reason, and what to try.
public struct NetlinkError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The reason of an error.
    public enum Reason: Sendable, Hashable {
        /// The socket cannot be opened: the kernel has no RDMA subsystem, or this process may not open the socket.
        case unavailable
        /// The kernel refused the request with `errno`.
        case refused
        /// The kernel's response cannot be decoded.
        case malformed
        /// The kernel did not respond.
        case silent
    }

    /// The reason.
    public let reason: Reason
    /// The request, such as `list the queue pairs of rxe0`.
    public let request: String
    /// The errno value; 0 for `malformed` and `silent`.
    public let errno: Int32
    /// The failure, with the errno's text.
    public let message: String
    /// What the user can try.
    public let hint: String

    /// Request, failure and hint: `cannot REQUEST: MESSAGE; HINT`.
    public var description: String { "cannot \(request): \(message); \(hint)" }

    init(_ reason: Reason, _ request: String, errno: Int32 = 0, _ message: String, hint: String) {
        self.reason = reason
        self.request = request
        self.errno = errno
        self.message = message
        self.hint = hint
    }

    /// A netlink socket that could not be opened.
    static func noSocket(
        _ request: String, errno: Int32, protocol number: Int32 = NETLINK_RDMA
    ) -> NetlinkError {
        let hasNoRDMA = errno == EPROTONOSUPPORT && number == NETLINK_RDMA
        let message =
            hasNoRDMA
            ? "this kernel has no RDMA subsystem" : "its netlink socket cannot be opened (\(text(ofErrno: errno)))"
        let hint =
            switch errno {
            case EPROTONOSUPPORT where hasNoRDMA: "load it with modprobe ib_core, or use the software device"
            case EMFILE: "the process has all descriptors open that it may: raise the limit with ulimit -n"
            case ENFILE: "all descriptors of the system are in use: raise fs.file-max with sysctl"
            case ENOMEM, ENOBUFS: "the system has no memory left for a socket: end programs that use much"
            default: "look for what forbids it: a seccomp filter, a security module, or a container's profile"
            }
        return NetlinkError(.unavailable, request, errno: errno, message, hint: hint)
    }

    /// A request that the kernel refused with an errno value.
    static func refused(_ request: String, errno: Int32) -> NetlinkError {
        let hint =
            switch errno {
            case ENOBUFS, ENOMEM: "ask again; if it stays so, end programs that use much memory"
            case EPERM, EACCES: "run it as root, or with CAP_NET_ADMIN"
            case EOPNOTSUPP, ENOSYS: "this kernel or driver does not have it; a newer one may"
            case EINVAL, ENODEV, ENOENT: "the device may just have gone; look again, or see dmesg(1)"
            default: "see dmesg(1)"
            }
        return NetlinkError(
            .refused, request, errno: errno, "the kernel returned: \(text(ofErrno: errno))", hint: hint)
    }

    /// A message that does not follow the format.
    static func malformed(_ request: String, _ message: MalformedMessage) -> NetlinkError {
        NetlinkError(
            .malformed, request, message.description,
            hint: "this kernel may be newer than this program knows; report it with the output of uname -a")
    }
}

/// The text of an errno value (strerror_r(3)).
func text(ofErrno code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
