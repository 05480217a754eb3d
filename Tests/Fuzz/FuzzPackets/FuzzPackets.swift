private let property = PacketProperty()

/// Feeds the parsers of RoCEWire with whatever libFuzzer thinks of: first as a packet in UDP, then as an IP packet.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPackets(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = property.violation(Array(UnsafeBufferPointer(start: start, count: count))) {
        fatalError(violation)
    }
    return 0
}
