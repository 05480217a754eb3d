/// A refusal of the kernel or the device: the errno value that the program receives, and the reason, which a real
/// kernel does not report.
struct Refusal: Error {
    /// A positive errno value.
    let errno: Int32
    let why: StaticString
    /// The wrong and the expected number, where the reason is about a number.
    var has: Int?
    var wants: Int?

    init(_ errno: Int32, _ why: StaticString, has: Int? = nil, wants: Int? = nil) {
        self.errno = errno
        self.why = why
        self.has = has
        self.wants = wants
    }
}

/// Throws a refusal unless the condition holds.
@inline(__always)
func demand(
    _ condition: Bool, _ errno: Int32, _ why: StaticString, has: Int? = nil, wants: Int? = nil
) throws(Refusal) {
    if !condition { throw Refusal(errno, why, has: has, wants: wants) }
}
