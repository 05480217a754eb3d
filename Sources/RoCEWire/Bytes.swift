/// Unaligned big-endian access. The caller has checked the length.
extension UnsafeRawPointer {
    @inlinable @inline(__always)
    internal func big<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
        T(bigEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension UnsafeMutableRawPointer {
    @inlinable @inline(__always)
    internal func setBig<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ value: T) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}

/// The low 24 bits of a 32-bit word, which hold PSN, QPN or MSN on the wire.
@inlinable @inline(__always)
internal func low24(_ word: UInt32) -> UInt32 { word & 0x00FF_FFFF }
