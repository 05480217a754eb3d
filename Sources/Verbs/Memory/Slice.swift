import CIBVerbs

extension MemoryRegion {
    /// A piece of a registered region, as work requests name it: what verbs calls a scatter/gather element.
    ///
    /// A plain value of 16 bytes, laid out as `struct ibv_sge`. It does not keep the region alive; a work request
    /// on a slice of a region that is gone completes with a local protection error.
    @frozen public struct Slice: @unchecked Sendable {
        // Unchecked: it holds three numbers.
        @usableFromInline let raw: ibv_sge

        /// A slice of memory that this package did not register, such as one that C registered.
        ///
        /// The device checks the key and the range when it comes to the work request.
        @inlinable public init(unsafeAddress address: UInt64, byteCount: UInt32, lkey: UInt32) {
            raw = ibv_sge(addr: address, length: byteCount, lkey: lkey)
        }

        /// Address of the first byte.
        @inlinable public var address: UInt64 { raw.addr }
        /// Size in bytes.
        @inlinable public var byteCount: Int { Int(raw.length) }
        /// Key of its region.
        @inlinable public var lkey: UInt32 { raw.lkey }

        /// The first `count` bytes of it, or all when it has fewer.
        @inlinable public func prefix(_ count: Int) -> Slice {
            Slice(unsafeAddress: raw.addr, byteCount: UInt32(min(max(count, 0), byteCount)), lkey: raw.lkey)
        }

        /// What follows the first `count` bytes; empty when it has no more.
        @inlinable public func dropFirst(_ count: Int) -> Slice {
            let dropped = UInt32(min(max(count, 0), byteCount))
            return Slice(
                unsafeAddress: raw.addr &+ UInt64(dropped), byteCount: raw.length &- dropped, lkey: raw.lkey)
        }
    }

    /// All of the region.
    ///
    /// - Throws: `EINVAL` when it is longer than the 2^32 - 1 bytes that a slice can name.
    public func slice() throws(VerbsError) -> Slice { try slice(0..<byteCount) }

    /// A piece of the region.
    ///
    /// - Throws: `EINVAL` when the range lies outside the region, or is longer than 2^32 - 1 bytes.
    @inlinable public func slice(_ range: Range<Int>) throws(VerbsError) -> Slice {
        guard range.lowerBound >= 0, range.upperBound <= byteCount, range.count <= Int(UInt32.max) else {
            throw outside(range)
        }
        return Slice(
            unsafeAddress: address &+ UInt64(range.lowerBound), byteCount: UInt32(truncatingIfNeeded: range.count),
            lkey: lkey)
    }

    @usableFromInline func outside(_ range: Range<Int>) -> VerbsError {
        range.count > Int(UInt32.max)
            ? outside("a slice names at most 2^32 - 1 bytes, \(range.count) were asked for: use several")
            : outside("bytes \(range) lie outside the region's \(byteCount) bytes")
    }
}
