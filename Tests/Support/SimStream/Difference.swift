import Glibc

/// A difference between the two libraries.
struct Difference: Error {
    let text: String

    init(_ text: String) { self.text = text }
}

/// A pair of values: one of the vendor's library, one of ours.
struct Twin<Value> {
    var vendor: Value
    var ours: Value

    init(_ vendor: Value, _ ours: Value) {
        self.vendor = vendor
        self.ours = ours
    }

    subscript(side: Int) -> Value {
        get { side == 0 ? vendor : ours }
        set { if side == 0 { vendor = newValue } else { ours = newValue } }
    }
}

/// Calls `body` for the vendor's library (0) and then for ours (1).
func both<Value>(_ body: (Int) throws(Difference) -> Value) throws(Difference) -> Twin<Value> {
    Twin(try body(0), try body(1))
}

func expectEqual<Value: Equatable>(
    _ found: Twin<Value>, _ what: @autoclosure () -> String
) throws(Difference) {
    if found.vendor != found.ours {
        throw Difference("\(what()): the vendor's library has \(found.vendor), ours \(found.ours)")
    }
}

/// Compares memory of the same size. The message divides it into entries of `unit` bytes.
func expectEqual(
    _ memory: Twin<UnsafeMutableRawBufferPointer>, unit: Int = 64, _ what: @autoclosure () -> String
) throws(Difference) {
    let count = min(memory.vendor.count, memory.ours.count)
    guard count > 0, let vendor = memory.vendor.baseAddress, let ours = memory.ours.baseAddress else { return }
    if memcmp(vendor, ours, count) == 0 { return }
    var first = 0
    while memory.vendor[first] == memory.ours[first] { first += 1 }
    let start = first / 16 * 16
    let end = min(start + 16, count)
    throw Difference(
        "\(what()): entry \(first / unit), byte \(first % unit): in the 16 bytes from \(start % unit) on "
            + "the vendor's library has \(hexadecimal(memory.vendor[start..<end])), "
            + "ours \(hexadecimal(memory.ours[start..<end]))")
}

private func hexadecimal(_ bytes: Slice<UnsafeMutableRawBufferPointer>) -> String {
    bytes.map { byte in
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0" + digits : digits
    }.joined(separator: " ")
}
