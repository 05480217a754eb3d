private let property = PacketProperty()

/// Passes the fuzzer's input to the parsers of RoCEWire: first as a UDP payload, then as an IP packet.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPackets(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = property.violation(Array(UnsafeBufferPointer(start: start, count: count))) {
        fatalError(violation)
    }
    return 0
}
