/// Which headers stand between the BTH and the payload. On the wire they follow each other in the order in which
/// they stand here (FETH before RETH; the others as IBTA volume 1, 5.2, lists them).
@frozen
public struct ExtendedHeaders: OptionSet, Hashable, Sendable {
    /// One bit per header.
    public let rawValue: UInt16

    /// Any set of bits; those above bit 8 mean nothing.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Datagram ETH, 8 bytes.
    @inlinable public static var deth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 0) }
    /// FLUSH ETH, 4 bytes.
    @inlinable public static var feth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 1) }
    /// RDMA ETH, 16 bytes.
    @inlinable public static var reth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 2) }
    /// Atomic ETH, 28 bytes.
    @inlinable public static var atomicETH: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 3) }
    /// ACK ETH, 4 bytes.
    @inlinable public static var aeth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 4) }
    /// Atomic ACK ETH, 8 bytes.
    @inlinable public static var atomicAckETH: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 5) }
    /// Immediate data, 4 bytes.
    @inlinable public static var immDt: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 6) }
    /// Invalidate ETH, 4 bytes.
    @inlinable public static var ieth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 7) }
    /// The 16 reserved bytes of a congestion notification packet.
    @inlinable public static var congestionReserved: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 8) }

    /// Bytes of all headers of the set together: 0 to 28 for the sets that opcodes have.
    @inlinable
    public var byteCount: Int {
        var count = 0
        if contains(.deth) { count &+= DETH.byteCount }
        if contains(.feth) { count &+= FETH.byteCount }
        if contains(.reth) { count &+= RETH.byteCount }
        if contains(.atomicETH) { count &+= AtomicETH.byteCount }
        if contains(.aeth) { count &+= AETH.byteCount }
        if contains(.atomicAckETH) { count &+= AtomicAckETH.byteCount }
        if contains(.immDt) { count &+= ImmDt.byteCount }
        if contains(.ieth) { count &+= IETH.byteCount }
        if contains(.congestionReserved) { count &+= 16 }
        return count
    }
}
