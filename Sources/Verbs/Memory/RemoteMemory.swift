/// Memory of a peer, as RDMA writes, reads and atomics name it: address, rkey and size.
///
/// The peer takes it from its region (`MemoryRegion.remote`) and sends it over, for instance within an `Endpoint`.
@frozen public struct RemoteMemory: Hashable, Sendable, Codable {
    /// Address of the first byte, as the peer's region names it.
    public let address: UInt64
    /// The peer's key.
    public let rkey: UInt32
    /// Size in bytes.
    public let byteCount: UInt64

    /// Memory of a peer with those values. Nothing is checked before the peer's device does.
    @inlinable public init(address: UInt64, rkey: UInt32, byteCount: UInt64) {
        self.address = address
        self.rkey = rkey
        self.byteCount = byteCount
    }

    /// The memory from `offset` on. Beyond its end there is nothing: the result is then empty.
    @inlinable public func dropFirst(_ offset: UInt64) -> RemoteMemory {
        let dropped = min(offset, byteCount)
        return RemoteMemory(address: address &+ dropped, rkey: rkey, byteCount: byteCount &- dropped)
    }
}

extension MemoryRegion {
    /// What a peer needs to reach the region. Its access flags say what the peer may do there.
    public var remote: RemoteMemory {
        RemoteMemory(address: address, rkey: rkey, byteCount: UInt64(byteCount))
    }
}
