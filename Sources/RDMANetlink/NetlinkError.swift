import Glibc

/// Something that the kernel did not tell over netlink, and what to try.
public struct NetlinkError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Why not.
    public enum Reason: Sendable, Hashable {
        /// There is no such socket: the kernel has no RDMA subsystem, or this process may not open one.
        case unavailable
        /// The kernel refused the request with `errno`.
        case refused
        /// The kernel's answer cannot be read.
        case malformed
        /// The kernel did not answer.
        case silent
    }

    /// Why not.
    public let reason: Reason
    /// What was asked for, such as `list the queue pairs of rxe0`.
    public let request: String
    /// The errno value; 0 where there is none.
    public let errno: Int32
    /// What is wrong, with the errno's text.
    public let sentence: String
    /// What to try.
    public let hint: String

    /// `cannot REQUEST: what is wrong; what to try`.
    public var description: String { "cannot \(request): \(sentence); \(hint)" }

    init(_ reason: Reason, _ request: String, errno: Int32 = 0, _ sentence: String, hint: String) {
        self.reason = reason
        self.request = request
        self.errno = errno
        self.sentence = sentence
        self.hint = hint
    }

    /// A netlink socket that could not be opened.
    static func noSocket(_ request: String, errno: Int32) -> NetlinkError {
        let sentence =
            errno == EPROTONOSUPPORT
            ? "this kernel has no RDMA subsystem" : "its netlink socket cannot be opened (\(text(ofErrno: errno)))"
        let hint =
            errno == EPROTONOSUPPORT
            ? "load it with modprobe ib_core, or use the software device"
            : "look for what forbids it: a seccomp filter, a security module, or a container's profile"
        return NetlinkError(.unavailable, request, errno: errno, sentence, hint: hint)
    }

    /// A request that the kernel answered with an errno value.
    static func refused(_ request: String, errno: Int32) -> NetlinkError {
        let hint =
            switch errno {
            case EPERM, EACCES: "run it as root, or with CAP_NET_ADMIN"
            case EOPNOTSUPP, ENOSYS: "this kernel or driver does not have it; a newer one may"
            case EINVAL, ENODEV, ENOENT: "the device may just have gone; look again, or see dmesg(1)"
            default: "see dmesg(1)"
            }
        return NetlinkError(.refused, request, errno: errno, "the kernel says: \(text(ofErrno: errno))", hint: hint)
    }

    /// A message that does not follow the format.
    static func malformed(_ request: String, _ message: MalformedMessage) -> NetlinkError {
        NetlinkError(
            .malformed, request, message.description,
            hint: "this kernel may be newer than this program knows; report it with the output of uname -a")
    }
}

/// The text of an errno value, as strerror_r(3) puts it.
func text(ofErrno code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
