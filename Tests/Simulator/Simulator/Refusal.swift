/// What the kernel, or the device, does not accept: the errno value that the program gets, and for a person the reason,
/// which the kernel does not tell.
struct Refusal: Error {
    /// A positive errno value.
    let errno: Int32
    let why: StaticString
    /// What was found, and what would have been right, where that is a number.
    var has: Int?
    var wants: Int?

    init(_ errno: Int32, _ why: StaticString, has: Int? = nil, wants: Int? = nil) {
        self.errno = errno
        self.why = why
        self.has = has
        self.wants = wants
    }
}

/// Refuses, unless the condition holds.
@inline(__always)
func demand(
    _ condition: Bool, _ errno: Int32, _ why: StaticString, has: Int? = nil, wants: Int? = nil
) throws(Refusal) {
    if !condition { throw Refusal(errno, why, has: has, wants: wants) }
}
