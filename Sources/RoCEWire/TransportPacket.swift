/// A parsed packet: its headers, and where its payload lies in the bytes it was parsed from.
///
/// ```
/// +-----+------------------+---------+-----+------+
/// | BTH | extended headers | payload | pad | ICRC |
/// +-----+------------------+---------+-----+------+
///   12    0 to 28            0...      0-3   4
/// ```
///
/// Parsing says that the format is right, nothing more: the ICRC (see ``ICRC``), keys, PSN and lengths are for the
/// receiver to check. A payload behind an opcode that has none (`opcode.hasPayload`) is reported, not refused: the
/// answer to it is a NAK, which takes a parsed packet.
@frozen
public struct TransportPacket: Equatable, Sendable, BitwiseCopyable {
    /// BTH and extended headers.
    public var headers: PacketHeaders
    /// Offset of the payload in the parsed bytes.
    public var payloadOffset: Int
    /// Length of the payload in bytes, without pad.
    public var payloadByteCount: Int

    /// Where the payload lies in the parsed bytes.
    @inlinable
    public var payload: Range<Int> { payloadOffset..<payloadOffset &+ payloadByteCount }

    /// Parses what UDP carried: a packet from the BTH to the ICRC.
    ///
    /// Reserved bits and the bytes of the pad are not looked at.
    /// - Parameter bytes: the whole packet and nothing behind it.
    /// - Throws: `PacketError` naming the first thing that is wrong.
    // Always inlined, so that the fields are written where the caller wants them: a copy of so many fields just
    // written waits for the stores, which took three times as long as all the rest.
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

    /// Names the part in which a packet that is too short ends.
    @usableFromInline
    internal static func truncation(_ headers: ExtendedHeaders, available: Int) -> PacketError {
        var needed = BTH.byteCount
        func endsIn(_ part: ExtendedHeaders) -> Bool {
            guard headers.contains(part) else { return false }
            needed += part.byteCount
            return available < needed
        }
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
