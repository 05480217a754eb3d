/// Unaligned big-endian access, which is all that the wire needs. Unchecked: whoever calls has compared lengths.
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

/// The values of 24 bits on the wire (PSN, QPN, MSN) travel in the low bits of a 32-bit word.
@inlinable @inline(__always)
internal func low24(_ word: UInt32) -> UInt32 { word & 0x00FF_FFFF }
