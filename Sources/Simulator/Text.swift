/// A buffer in which a line of text is built. It does not use `String`, because Embedded Swift would link its Unicode
/// tables.
final class Text {
    private static let capacity = 512
    private let bytes = UnsafeMutablePointer<CChar>.allocate(capacity: Text.capacity)
    private var count = 0

    init() { bytes[0] = 0 }

    deinit { bytes.deallocate() }

    /// The text; it lives as long as this object.
    var cString: UnsafePointer<CChar> { UnsafePointer(bytes) }

    func clear() {
        count = 0
        bytes[0] = 0
    }

    /// Appends a byte; does nothing when the buffer is full.
    func append(byte: UInt8) {
        guard count < Text.capacity - 1 else { return }
        bytes[count] = CChar(bitPattern: byte)
        count += 1
        bytes[count] = 0
    }

    func append(_ text: StaticString) {
        // A literal of one character may be stored as a Unicode scalar, without an address.
        guard text.hasPointerRepresentation else {
            return append(byte: UInt8(truncatingIfNeeded: text.unicodeScalar.value))
        }
        for index in 0..<text.utf8CodeUnitCount { append(byte: text.utf8Start[index]) }
    }

    /// In decimal.
    func append(_ number: Int) {
        if number < 0 { append("-") }
        var divisor: UInt = 1
        while number.magnitude / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            append(byte: UInt8(ascii: "0") + UInt8(number.magnitude / divisor % 10))
            divisor /= 10
        }
    }

    /// - Parameter ten: The digit after 9: sysfs has lower-case digits, a modalias upper-case ones.
    func appendHexadecimal(_ value: UInt64, digits: Int, ten: UInt8 = UInt8(ascii: "a")) {
        var shift = UInt64(4 * digits)
        while shift > 0 {
            shift -= 4
            let digit = UInt8(truncatingIfNeeded: value >> shift & 15)
            append(byte: digit < 10 ? UInt8(ascii: "0") + digit : ten + digit - 10)
        }
    }

    /// Appends 64 bits in the form `0002:c903:0000:0100`.
    func appendGroups(_ value: UInt64) {
        var shift: UInt64 = 64
        while shift > 0 {
            shift -= 16
            appendHexadecimal(value >> shift, digits: 4)
            if shift > 0 { append(":") }
        }
    }
}
