extension UnsafeMutableRawPointer {
    /// Stores a field of a WQE or CQE at an offset in bytes.
    @inline(__always)
    public func put<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        storeBytes(of: value, toByteOffset: offset, as: Value.self)
    }
}

extension UnsafeRawPointer {
    /// Loads 16 bytes, unaligned, at an offset in bytes.
    @inline(__always)
    public func get16(_ offset: Int) -> SIMD2<UInt64> { loadUnaligned(fromByteOffset: offset, as: SIMD2<UInt64>.self) }
}
