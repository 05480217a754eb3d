import CIBVerbs
import CLinux
import CProviderABI

extension StaticString {
    /// The literal as a C string. The string is never freed.
    public var cString: UnsafePointer<CChar> {
        UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self)
    }
}

/// One line of text for an error message or the log. It does not use `String`, whose Unicode tables would double the
/// size of the module. Text beyond 511 bytes is truncated.
public struct MessageText: ~Copyable {
    private static let capacity = 512
    private let bytes = UnsafeMutablePointer<CChar>.allocate(capacity: MessageText.capacity)
    private var count = 0

    /// Creates a text that begins with `text`.
    public init(_ text: StaticString = "") {
        bytes[0] = 0
        append(text)
    }

    deinit { bytes.deallocate() }

    /// Appends a literal.
    public mutating func append(_ text: StaticString) {
        append(text.cString)
    }

    /// Appends a C string. Does nothing for nil.
    public mutating func append(_ text: UnsafePointer<CChar>?) {
        guard var next = text else { return }
        while next.pointee != 0 && count < Self.capacity - 1 {
            bytes[count] = next.pointee
            count += 1
            next += 1
        }
        bytes[count] = 0
    }

    /// Appends a number in decimal.
    public mutating func append(_ number: Int) {
        if number < 0 { append("-") }
        var rest = number.magnitude
        var divisor: UInt = 1
        while rest / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            guard count < Self.capacity - 1 else { return }
            bytes[count] = CChar(48 + rest / divisor)
            count += 1
            rest %= divisor
            divisor /= 10
        }
        bytes[count] = 0
    }

    /// Appends the name and the description of an errno value, and a remedy if one is known: "EMFILE (too many open
    /// files): raise `ulimit -n`".
    public mutating func append(error: Int32) {
        append(linux_error_name(error))
        append(" (")
        append(linux_error_text(error))
        append(")")
        switch error {
        case EMFILE: append(": the process has reached its limit of open descriptors; raise `ulimit -n`")
        case ENFILE: append(": the system has reached its limit of open files; raise fs.file-max")
        case EPERM, EACCES, ENOSYS: append(": a sandbox forbids the call, or the kernel does not support it")
        default: break
        }
    }

    /// Calls `body` with the text, which is valid during the call.
    public func withCString(_ body: (UnsafePointer<CChar>) -> Void) { body(bytes) }

    /// Returns a copy of the text, which the caller deallocates.
    public func copy() -> UnsafeMutablePointer<CChar> {
        let result = UnsafeMutablePointer<CChar>.allocate(capacity: count + 1)
        result.initialize(from: bytes, count: count + 1)
        return result
    }

    /// Stores the text in a reason of the core (`struct rdma_reason`). Does nothing for nil.
    public func store(in why: UnsafeMutablePointer<rdma_reason>?) {
        if let why { rdma_set_reason(why, bytes) }
    }
}
