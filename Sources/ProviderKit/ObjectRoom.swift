import CProviderABI

/// The zeroed bytes between the public struct of an object (such as `ibv_qp_ex`) and the provider's state behind it: a
/// member that a later verbs.h adds to the public struct reads as 0 (rdma_provider.h, chapter 1).
public struct ObjectRoom: BitwiseCopyable, Sendable {
    /// `RDMA_OBJECT_ROOM` bytes.
    private var bytes = InlineArray<8, UInt64>(repeating: 0)

    /// Zeroed bytes.
    public init() {}
}

/// Allocates zeroed memory for an object that has no state of the provider beyond its public struct, such as an `ibv_mr`,
/// and for the room behind it. `deallocate()` frees it.
public func allocatePublicStruct<Public: BitwiseCopyable>(_ type: Public.Type) -> UnsafeMutablePointer<Public> {
    let byteCount = MemoryLayout<Public>.stride + MemoryLayout<ObjectRoom>.size
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: MemoryLayout<UInt64>.alignment)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    return memory.bindMemory(to: type, capacity: 1)
}
