/// Memory of a peer for RDMA writes, reads and atomics: address, rkey and size (`ibv_send_wr.wr.rdma`, `wr.atomic`).
///
/// The peer gets it from its region (`MemoryRegion.remote`) and sends it to this side, for instance within an
/// `Endpoint`.
@frozen public struct RemoteMemory: Hashable, Sendable, Codable {
    /// Address of the first byte in the peer's region (`remote_addr`).
    public let address: UInt64
    /// The rkey of the peer's region (`rkey`).
    public let rkey: UInt32
    /// Size in bytes.
    public let byteCount: UInt64

    /// Memory of a peer with those values. The peer's device checks them when an operation arrives.
    @inlinable public init(address: UInt64, rkey: UInt32, byteCount: UInt64) {
        self.address = address
        self.rkey = rkey
        self.byteCount = byteCount
    }

    /// A part of the memory, with the same rkey. The range counts bytes from the start.
    ///
    /// - Throws: `EINVAL` when the range ends after the memory.
    @inlinable public func subrange(_ range: Range<UInt64>) throws(VerbsError) -> RemoteMemory {
        guard range.upperBound <= byteCount else { throw outside(range) }
        return RemoteMemory(
            address: address &+ range.lowerBound, rkey: rkey, byteCount: range.upperBound &- range.lowerBound)
    }

    /// The memory from an offset to its end, with the same rkey.
    ///
    /// - Throws: `EINVAL` when the offset is larger than the memory.
    @inlinable public func subrange(_ range: PartialRangeFrom<UInt64>) throws(VerbsError) -> RemoteMemory {
        guard range.lowerBound <= byteCount else { throw outside(range.lowerBound..<range.lowerBound) }
        return try subrange(range.lowerBound..<byteCount)
    }

    @usableFromInline @inline(never)
    func outside(_ range: Range<UInt64>) -> VerbsError {
        VerbsError(
            .postSend, errno: .invalidArgument,
            object: VerbsObject("remote memory with rkey", number: UInt64(rkey), device: ""),
            hint: "bytes \(range) lie outside its \(byteCount) bytes")
    }
}

extension MemoryRegion {
    /// The address, rkey and size that a peer needs to access the region. The region's access flags limit the
    /// operations.
    public var remote: RemoteMemory {
        RemoteMemory(address: address, rkey: rkey, byteCount: UInt64(byteCount))
    }
}
