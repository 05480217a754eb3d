import RDMANetlink

/// Feeds everything that reads a datagram of the kernel's with whatever libFuzzer thinks of.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzNetlink(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    readEverything(Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}
