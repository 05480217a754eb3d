import RDMANetlink

/// Passes the fuzzer's input to all parsers of netlink datagrams from the kernel.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzNetlink(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    readEverything(Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}
