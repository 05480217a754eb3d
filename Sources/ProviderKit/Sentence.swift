import CProviderABI

extension StaticString {
    /// The literal as a C string, which lives as long as the process.
    public var cString: UnsafePointer<CChar> {
        UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self)
    }
}

/// One line of text for a person, built without `String`, whose Unicode tables would double the module. What does not
/// fit into 511 bytes is cut off.
public struct Sentence: ~Copyable {
    private static let capacity = 512
    private let bytes = UnsafeMutablePointer<CChar>.allocate(capacity: Sentence.capacity)
    private var count = 0

    /// A sentence that begins so.
    public init(_ text: StaticString = "") {
        bytes[0] = 0
        append(text)
    }

    deinit { bytes.deallocate() }

    /// Adds a literal.
    public mutating func append(_ text: StaticString) {
        append(text.cString)
    }

    /// Adds a C string; nothing for nil.
    public mutating func append(_ text: UnsafePointer<CChar>?) {
        guard var next = text else { return }
        while next.pointee != 0 && count < Self.capacity - 1 {
            bytes[count] = next.pointee
            count += 1
            next += 1
        }
        bytes[count] = 0
    }

    /// Adds a number in decimal.
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

    /// The text; valid while the sentence lives.
    public func withCString(_ body: (UnsafePointer<CChar>) -> Void) { body(bytes) }

    /// A C string of its own, which the caller deallocates.
    public func copy() -> UnsafeMutablePointer<CChar> {
        let result = UnsafeMutablePointer<CChar>.allocate(capacity: count + 1)
        result.initialize(from: bytes, count: count + 1)
        return result
    }

    /// Writes the text into a reason that the core has handed in; does nothing for nil.
    public func store(in why: UnsafeMutablePointer<rdma_reason>?) {
        if let why { rdma_set_reason(why, bytes) }
    }
}
