/// The set of headers between the BTH and the payload: the extended transport headers, ImmDt and IETH (IBTA volume 1,
/// 9.3). On the wire they follow each other in the order in which they are declared here (FETH before RETH; the others
/// as IBTA volume 1, 5.2, lists them).
@frozen
public struct ExtendedHeaders: OptionSet, Hashable, Sendable {
    /// One bit for each header that can follow the BTH (`enum rxe_hdr_mask` of the kernel's rxe).
    public let rawValue: UInt16

    /// Creates a set of headers that follow the BTH from any bits; those above bit 9 are ignored.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// XRCETH, the extended reliable connection extended transport header, 4 bytes (IBTA volume 1, annex A14).
    @inlinable public static var xrceth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 9) }
    /// DETH, the datagram extended transport header, 8 bytes (IBTA volume 1, 9.3.2).
    @inlinable public static var deth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 0) }
    /// FETH, the FLUSH extended transport header, 4 bytes (IBTA volume 1 release 1.5, annex A19).
    @inlinable public static var feth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 1) }
    /// RETH, the RDMA extended transport header, 16 bytes (IBTA volume 1, 9.3.3).
    @inlinable public static var reth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 2) }
    /// AtomicETH, the atomic extended transport header, 28 bytes (IBTA volume 1, 9.3.4).
    @inlinable public static var atomicETH: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 3) }
    /// AETH, the ACK extended transport header, 4 bytes (IBTA volume 1, 9.3.5).
    @inlinable public static var aeth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 4) }
    /// AtomicAckETH, the atomic ACK extended transport header, 8 bytes (IBTA volume 1, 9.5.3).
    @inlinable public static var atomicAckETH: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 5) }
    /// ImmDt, the immediate data, 4 bytes (IBTA volume 1, 9.3.6).
    @inlinable public static var immDt: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 6) }
    /// IETH, the invalidate extended transport header, 4 bytes (IBTA volume 1, 9.3.7).
    @inlinable public static var ieth: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 7) }
    /// The 16 reserved bytes of a congestion notification packet (RoCEv2 annex A17.9.3).
    @inlinable public static var congestionReserved: ExtendedHeaders { ExtendedHeaders(rawValue: 1 << 8) }

    /// The length of the reserved bytes of a CNP: 16 (RoCEv2 annex A17.9.3).
    @inlinable internal static var congestionReservedByteCount: Int { 16 }

    /// The bytes of all headers of the set: 0 to 32 for the sets of a BTH.OpCode.
    @inlinable
    public var byteCount: Int {
        var count = 0
        if contains(.xrceth) { count &+= XRCETH.byteCount }
        if contains(.deth) { count &+= DETH.byteCount }
        if contains(.feth) { count &+= FETH.byteCount }
        if contains(.reth) { count &+= RETH.byteCount }
        if contains(.atomicETH) { count &+= AtomicETH.byteCount }
        if contains(.aeth) { count &+= AETH.byteCount }
        if contains(.atomicAckETH) { count &+= AtomicAckETH.byteCount }
        if contains(.immDt) { count &+= ImmDt.byteCount }
        if contains(.ieth) { count &+= IETH.byteCount }
        if contains(.congestionReserved) { count &+= Self.congestionReservedByteCount }
        return count
    }
}
