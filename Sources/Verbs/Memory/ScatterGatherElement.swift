import CIBVerbs
import CProviderABI

/// A scatter/gather element (SGE): the address, length and lkey of a range of a registered region (`struct ibv_sge`).
///
/// A plain value of 16 bytes with the layout of `struct ibv_sge`. It does not keep the region alive: a work request
/// whose SGE names a destroyed region completes with `localProtectionError` (`IBV_WC_LOC_PROT_ERR`).
@frozen public struct ScatterGatherElement: @unchecked Sendable {
    // Unchecked: it holds three numbers.
    @usableFromInline let raw: ibv_sge

    /// An SGE for memory that this package did not register, for example memory that C code registered.
    ///
    /// The device checks the lkey and the range when it executes the work request.
    @inlinable public init(unsafeAddress address: UInt64, byteCount: UInt32, lkey: UInt32) {
        raw = ibv_sge(addr: address, length: byteCount, lkey: lkey)
    }

    /// Address of the first byte (`ibv_sge.addr`).
    @inlinable public var address: UInt64 { raw.addr }
    /// Length in bytes (`ibv_sge.length`).
    @inlinable public var byteCount: Int { Int(raw.length) }
    /// The region's lkey (`ibv_sge.lkey`).
    @inlinable public var lkey: UInt32 { raw.lkey }

    /// An SGE for the first `count` bytes, or for all bytes when there are fewer.
    @inlinable public func prefix(_ count: Int) -> ScatterGatherElement {
        ScatterGatherElement(unsafeAddress: raw.addr, byteCount: UInt32(min(max(count, 0), byteCount)), lkey: raw.lkey)
    }

    /// An SGE without the first `count` bytes; it is empty when there are no more bytes.
    @inlinable public func dropFirst(_ count: Int) -> ScatterGatherElement {
        let dropped = UInt32(min(max(count, 0), byteCount))
        return ScatterGatherElement(
            unsafeAddress: raw.addr &+ UInt64(dropped), byteCount: raw.length &- dropped, lkey: raw.lkey)
    }
}

extension ScatterGatherElement: Hashable {
    /// Whether address, length and lkey are equal.
    @inlinable public static func == (left: Self, right: Self) -> Bool {
        left.raw.addr == right.raw.addr && left.raw.length == right.raw.length && left.raw.lkey == right.raw.lkey
    }

    /// Hashes address, length and lkey.
    @inlinable public func hash(into hasher: inout Hasher) {
        hasher.combine(raw.addr)
        hasher.combine(raw.length)
        hasher.combine(raw.lkey)
    }
}

extension MemoryRegion {
    /// An SGE for the whole region.
    ///
    /// - Throws: `EINVAL` when the region is longer than 2^32 - 1 bytes, the limit of `ibv_sge.length`.
    public func sge() throws(VerbsError) -> ScatterGatherElement { try sge(0..<byteCount) }

    /// An SGE for a range of the region, counted in bytes from its start.
    ///
    /// - Throws: `EINVAL` when the range lies outside the region, or is longer than 2^32 - 1 bytes.
    @inlinable public func sge(_ range: Range<Int>) throws(VerbsError) -> ScatterGatherElement {
        guard range.lowerBound >= 0, range.upperBound <= byteCount, range.count <= Int(UInt32.max) else {
            throw outside(range)
        }
        return ScatterGatherElement(
            unsafeAddress: address &+ UInt64(range.lowerBound), byteCount: UInt32(truncatingIfNeeded: range.count),
            lkey: lkey)
    }

    @usableFromInline func outside(_ range: Range<Int>) -> VerbsError {
        range.count > Int(UInt32.max)
            ? outside("an SGE has at most 2^32 - 1 bytes, \(range.count) were requested: use several")
            : outside("bytes \(range) lie outside the region's \(byteCount) bytes")
    }
}
