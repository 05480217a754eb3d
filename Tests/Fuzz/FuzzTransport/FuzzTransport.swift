/// Reads packets, posts, state changes and time steps from the fuzzer's input and runs them on an engine.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTransport(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let world = try? EngineWorld() else { fatalError("the engine refused its objects") }
    if let violation = world.violation(Array(UnsafeBufferPointer(start: start, count: count))) {
        fatalError(violation)
    }
    return 0
}
