/// A parsed packet: its headers, and the position of its payload in the bytes it was parsed from (IBTA volume 1, 5.2).
///
/// ```
/// +-----+------------------+---------+-----+------+
/// | BTH | extended headers | payload | pad | ICRC |
/// +-----+------------------+---------+-----+------+
///   12    0 to 32            0...      0-3   4
/// ```
///
/// Parsing checks the format only. The receiver checks the ICRC (see ``ICRC``), keys, PSN and lengths. A payload after
/// a BTH.OpCode that has none (`opcode.hasPayload`) is no parsing error, since the responder returns a NAK for it.
@frozen
public struct TransportPacket: Equatable, Sendable, BitwiseCopyable {
    /// The BTH and the headers that follow it.
    public var headers: PacketHeaders
    /// The offset of the payload in the parsed bytes: the bytes of the BTH and the headers that follow it.
    public var payloadOffset: Int
    /// The length of the payload in bytes, without the pad of BTH.PadCnt.
    public var payloadByteCount: Int

    /// The range of the payload in the parsed bytes, between the headers and the pad of BTH.PadCnt.
    @inlinable
    public var payload: Range<Int> { payloadOffset..<payloadOffset &+ payloadByteCount }

    /// Parses the payload of a UDP datagram: a packet from the BTH to the ICRC (IBTA volume 1, 9.6).
    ///
    /// Reserved bits and the bytes of the pad are ignored.
    /// - Parameter bytes: the whole packet and nothing behind it.
    /// - Throws: `PacketError` for the first error in the packet.
    // Always inlined, so that the fields are written to their final place: a copy of so many fields right after they
    // were written waits for the stores, which took three times as long as the parsing itself.
    @inlinable @inline(__always)
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= BTH.byteCount, let start = bytes.baseAddress else {
            throw .truncated(.bth, needed: BTH.byteCount, available: bytes.count)
        }
        let bth = BTH(at: start)
        guard bth.transportVersion == 0 else { throw .unsupportedTransportVersion(bth.transportVersion) }
        let row = bth.opcode.row
        guard row.isKnown else { throw .unknownOpcode(bth.opcode) }
        let afterHeaders = bytes.count &- row.headerByteCount &- ICRC.byteCount
        guard afterHeaders >= 0 else { throw Self.truncation(row.headers, available: bytes.count) }
        let pad = Int(bth.padCount)
        guard pad <= afterHeaders else { throw .padExceedsPayload(pad: pad, available: afterHeaders) }
        guard afterHeaders & 3 == 0 else { throw .unalignedPayload(afterHeaders) }
        payloadOffset = row.headerByteCount
        payloadByteCount = afterHeaders &- pad
        headers = PacketHeaders(bth)
        headers.parseExtended(row.headers, at: start + BTH.byteCount)
    }

    /// The error for a packet that is too short, with the part in which it ends.
    @usableFromInline
    internal static func truncation(_ headers: ExtendedHeaders, available: Int) -> PacketError {
        var needed = BTH.byteCount
        func endsIn(_ part: ExtendedHeaders) -> Bool {
            guard headers.contains(part) else { return false }
            needed += part.byteCount
            return available < needed
        }
        if endsIn(.xrceth) { return .truncated(.xrceth, needed: needed, available: available) }
        if endsIn(.deth) { return .truncated(.deth, needed: needed, available: available) }
        if endsIn(.feth) { return .truncated(.feth, needed: needed, available: available) }
        if endsIn(.reth) { return .truncated(.reth, needed: needed, available: available) }
        if endsIn(.atomicETH) { return .truncated(.atomicETH, needed: needed, available: available) }
        if endsIn(.aeth) { return .truncated(.aeth, needed: needed, available: available) }
        if endsIn(.atomicAckETH) { return .truncated(.atomicAckETH, needed: needed, available: available) }
        if endsIn(.immDt) { return .truncated(.immDt, needed: needed, available: available) }
        if endsIn(.ieth) { return .truncated(.ieth, needed: needed, available: available) }
        if endsIn(.congestionReserved) {
            return .truncated(.congestionReserved, needed: needed, available: available)
        }
        return .truncated(.icrc, needed: needed + ICRC.byteCount, available: available)
    }
}
