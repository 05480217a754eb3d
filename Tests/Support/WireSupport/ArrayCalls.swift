public import RoCEWire

// Parsers and emitters work on raw buffers; tests hold arrays. The `do` statements stand here once because Swift 6.3
// crashes on a closure of typed throws where the standard library takes one that throws anything.

/// Calls a parser with the bytes of an array.
public func parse<Value>(
    _ bytes: [UInt8], _ parser: (UnsafeRawBufferPointer) throws(PacketError) -> Value
) throws(PacketError) -> Value {
    let result: Result<Value, PacketError> = bytes.withUnsafeBytes { raw in
        do throws(PacketError) { return .success(try parser(raw)) } catch { return .failure(error) }
    }
    return try result.get()
}

/// Calls an emitter with an array of `count` bytes. They are not zero, so that a byte that is not written is seen.
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
