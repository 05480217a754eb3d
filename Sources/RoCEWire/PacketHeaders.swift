/// The headers of a packet as one plain value. `bth.opcode` says which of the extended headers count
/// (`bth.opcode.headers`); the others are zero after parsing and are not looked at when emitting.
@frozen
public struct PacketHeaders: Equatable, Sendable, BitwiseCopyable {
    /// Base transport header: every packet has one.
    public var bth: BTH
    /// UD: keys of the datagram.
    public var deth = DETH(queueKey: 0, sourceQP: 0)
    /// FLUSH.
    public var feth = FETH(placement: 0, selectivity: 0)
    /// WRITE first and only, READ request, FLUSH, ATOMIC WRITE.
    public var reth = RETH(virtualAddress: 0, remoteKey: 0, dmaLength: 0)
    /// Compare and swap, fetch and add.
    public var atomicETH = AtomicETH(virtualAddress: 0, remoteKey: 0, swapOrAdd: 0)
    /// Acknowledgements, and READ responses but for the middle ones.
    public var aeth = AETH(syndrome: AETHSyndrome(rawValue: 0), msn: 0)
    /// Atomic acknowledgement.
    public var atomicAckETH = AtomicAckETH(original: 0)
    /// What ends with immediate.
    public var immDt = ImmDt(value: 0)
    /// What ends with invalidate.
    public var ieth = IETH(remoteKey: 0)

    /// The headers of a packet with this BTH, the extended ones zero.
    @inlinable
    public init(_ bth: BTH) { self.bth = bth }

    /// The longest there is: BTH and AtomicETH.
    @inlinable public static var maximumByteCount: Int { 40 }

    /// Bytes of the BTH and the extended headers of this opcode.
    @inlinable
    public var byteCount: Int { bth.opcode.headerByteCount }

    /// Bytes of the whole packet, from the BTH to the ICRC: what UDP carries.
    @inlinable
    public func packetByteCount(payloadByteCount: Int) -> Int {
        byteCount &+ payloadByteCount &+ Self.padCount(payloadByteCount: payloadByteCount) &+ ICRC.byteCount
    }

    /// The 0 to 3 bytes of zeros that fill a payload up to a multiple of four.
    @inlinable
    public static func padCount(payloadByteCount: Int) -> Int { (0 &- payloadByteCount) & 3 }
}

// MARK: - Emitting

extension PacketHeaders {
    /// Writes the headers alone, for a sender whose payload lies elsewhere: payload, pad and ICRC are to follow.
    ///
    /// BTH.Pad is worked out from `payloadByteCount`; `bth.padCount` is not looked at.
    /// - Returns: the bytes written.
    /// - Throws: `PacketError.noRoom`, or `unknownOpcode` for an opcode whose headers nobody knows.
    @inlinable
    public func emitHeaders(
        into bytes: UnsafeMutableRawBufferPointer, payloadByteCount: Int
    ) throws(PacketError) -> Int {
        let row = bth.opcode.row
        guard row.isKnown else { throw .unknownOpcode(bth.opcode) }
        let count = row.headerByteCount
        guard bytes.count >= count, let start = bytes.baseAddress else {
            throw .noRoom(needed: count, available: bytes.count)
        }
        var base = bth
        base.padCount = UInt8(truncatingIfNeeded: Self.padCount(payloadByteCount: payloadByteCount))
        base.emit(at: start)
        emitExtended(row.headers, at: start + BTH.byteCount)
        return count
    }

    /// Writes headers and pad of a packet that lies in one piece, and leaves the payload and the ICRC to the caller:
    /// the payload goes to the returned range, the ICRC (see `ICRC.store`) into the last four bytes of the packet.
    ///
    /// BTH.Pad is worked out from `payloadByteCount`; `bth.padCount` is not looked at.
    /// - Parameters:
    ///   - bytes: room for `packetByteCount(payloadByteCount:)` bytes; it may be longer.
    ///   - payloadByteCount: length of the payload in bytes, not negative.
    /// - Returns: where in `bytes` the payload goes.
    /// - Throws: `PacketError.noRoom`, or `unknownOpcode` for an opcode whose headers nobody knows.
    @inlinable
    public func emit(
        into bytes: UnsafeMutableRawBufferPointer, payloadByteCount: Int
    ) throws(PacketError) -> Range<Int> {
        let needed = packetByteCount(payloadByteCount: payloadByteCount)
        guard payloadByteCount >= 0, bytes.count >= needed else {
            throw .noRoom(needed: needed, available: bytes.count)
        }
        let start = try emitHeaders(into: bytes, payloadByteCount: payloadByteCount)
        let end = start &+ payloadByteCount
        for index in end..<end &+ Self.padCount(payloadByteCount: payloadByteCount) { bytes[index] = 0 }
        return start..<end
    }

    @inlinable
    internal func emitExtended(_ headers: ExtendedHeaders, at start: UnsafeMutableRawPointer) {
        if headers.isEmpty { return }
        var next = start
        if headers.contains(.deth) { deth.emit(advancing: &next) }
        if headers.contains(.feth) { feth.emit(advancing: &next) }
        if headers.contains(.reth) { reth.emit(advancing: &next) }
        if headers.contains(.atomicETH) { atomicETH.emit(advancing: &next) }
        if headers.contains(.aeth) { aeth.emit(advancing: &next) }
        if headers.contains(.atomicAckETH) { atomicAckETH.emit(advancing: &next) }
        if headers.contains(.immDt) { immDt.emit(advancing: &next) }
        if headers.contains(.ieth) { ieth.emit(advancing: &next) }
        if headers.contains(.congestionReserved) {
            next.setBig(0, UInt64(0))
            next.setBig(8, UInt64(0))
        }
    }

    /// Reads the extended headers, unchecked: all of them must be readable.
    @inlinable
    internal mutating func parseExtended(_ headers: ExtendedHeaders, at start: UnsafeRawPointer) {
        if headers.isEmpty { return }
        var next = start
        if headers.contains(.deth) { deth = .init(advancing: &next) }
        if headers.contains(.feth) { feth = .init(advancing: &next) }
        if headers.contains(.reth) { reth = .init(advancing: &next) }
        if headers.contains(.atomicETH) { atomicETH = .init(advancing: &next) }
        if headers.contains(.aeth) { aeth = .init(advancing: &next) }
        if headers.contains(.atomicAckETH) { atomicAckETH = .init(advancing: &next) }
        if headers.contains(.immDt) { immDt = .init(advancing: &next) }
        if headers.contains(.ieth) { ieth = .init(advancing: &next) }
    }
}

// No local functions that capture: without optimisation those put what they capture on the heap.
extension WireFormat {
    @inlinable @inline(__always)
    internal init(advancing next: inout UnsafeRawPointer) {
        self.init(at: next)
        next += Self.byteCount
    }

    @inlinable @inline(__always)
    internal func emit(advancing next: inout UnsafeMutableRawPointer) {
        emit(at: next)
        next += Self.byteCount
    }
}
