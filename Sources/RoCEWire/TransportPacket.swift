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
    public let headers: PacketHeaders
    /// Offset of the payload in the parsed bytes.
    public let payloadOffset: Int
    /// Length of the payload in bytes, without pad.
    public let payloadByteCount: Int

    /// Where the payload lies in the parsed bytes.
    @inlinable
    public var payload: Range<Int> { payloadOffset..<payloadOffset &+ payloadByteCount }

    /// Parses what UDP carried: a packet from the BTH to the ICRC.
    ///
    /// Reserved bits and the bytes of the pad are not looked at.
    /// - Parameter bytes: the whole packet and nothing behind it.
    /// - Throws: `PacketError` naming the first thing that is wrong.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        let bth = try BTH(parsing: bytes)
        guard bth.transportVersion == 0 else { throw .unsupportedTransportVersion(bth.transportVersion) }
        let opcode = bth.opcode
        guard opcode.isKnown else { throw .unknownOpcode(opcode) }
        let headerByteCount = opcode.headerByteCount
        let afterHeaders = bytes.count &- headerByteCount &- ICRC.byteCount
        guard afterHeaders >= 0, let start = bytes.baseAddress else {
            throw Self.truncation(opcode.headers, available: bytes.count)
        }
        let pad = Int(bth.padCount)
        guard pad <= afterHeaders else { throw .padExceedsPayload(pad: pad, available: afterHeaders) }
        guard afterHeaders & 3 == 0 else { throw .unalignedPayload(afterHeaders) }
        var headers = PacketHeaders(bth)
        headers.parseExtended(opcode.headers, at: start + BTH.byteCount)
        self.headers = headers
        payloadOffset = headerByteCount
        payloadByteCount = afterHeaders &- pad
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
