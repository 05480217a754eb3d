public import RoCEWire

// Parsers and emitters use raw buffers; tests have arrays. These functions have `do` statements because Swift 6.3
// crashes on a closure with typed throws as an argument of a standard library function that takes an untyped throwing
// closure.

/// Calls a parser with the bytes of an array.
public func parse<Value>(
    _ bytes: [UInt8], _ parser: (UnsafeRawBufferPointer) throws(PacketError) -> Value
) throws(PacketError) -> Value {
    let result: Result<Value, PacketError> = bytes.withUnsafeBytes { raw in
        do throws(PacketError) { return .success(try parser(raw)) } catch { return .failure(error) }
    }
    return try result.get()
}

/// Calls an emitter with an array of `count` bytes. They are not zero, so that bytes that are not written are detected.
public func written(
    _ count: Int, _ emitter: (UnsafeMutableRawBufferPointer) throws(PacketError) -> Void
) throws(PacketError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    let result: Result<Void, PacketError> = bytes.withUnsafeMutableBytes { raw in
        do throws(PacketError) { return .success(try emitter(raw)) } catch { return .failure(error) }
    }
    try result.get()
    return bytes
}
