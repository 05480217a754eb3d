/// The headers of a packet: the BTH and the headers that follow it (IBTA volume 1, 5.2). `bth.opcode.headers` is the
/// set of headers that the packet has; the others are zero after parsing and are ignored when emitting.
@frozen
public struct PacketHeaders: Equatable, Sendable, BitwiseCopyable {
    /// The BTH, which every packet has.
    public var bth: BTH
    /// The XRCETH of XRC requests: the number of the shared receive queue.
    public var xrceth = XRCETH(sharedReceiveQueueNumber: 0)
    /// The DETH of UD packets: Q_Key and source QPN.
    public var deth = DETH(qkey: 0, sourceQPN: 0)
    /// The FETH of a FLUSH.
    public var feth = FETH(placement: 0, selectivity: 0)
    /// The RETH of RDMA WRITE First and Only, RDMA READ request, FLUSH and ATOMIC WRITE.
    public var reth = RETH(virtualAddress: 0, rkey: 0, dmaLength: 0)
    /// The AtomicETH of CmpSwap and FetchAdd.
    public var atomicETH = AtomicETH(virtualAddress: 0, rkey: 0, swapOrAdd: 0)
    /// The AETH of acknowledges and of RDMA READ responses except Middle.
    public var aeth = AETH(syndrome: AETHSyndrome(rawValue: 0), msn: 0)
    /// The AtomicAckETH of an ATOMIC acknowledge.
    public var atomicAckETH = AtomicAckETH(original: 0)
    /// The ImmDt of packets with immediate data.
    public var immDt = ImmDt(value: 0)
    /// The IETH of packets with invalidate.
    public var ieth = IETH(rkey: 0)

    /// Creates the headers of a packet with this BTH; the others are zero.
    @inlinable
    public init(_ bth: BTH) { self.bth = bth }

    /// The length of the longest headers in bytes: BTH, XRCETH and AtomicETH.
    @inlinable public static var maximumByteCount: Int { BTH.byteCount + XRCETH.byteCount + AtomicETH.byteCount }

    /// The largest path MTU, and so the longest payload of a packet: 4096 bytes (`IBV_MTU_4096`).
    @inlinable public static var maximumPayloadByteCount: Int { 4096 }

    /// The length of the longest packet in bytes, BTH to ICRC: longest headers, largest path MTU and ICRC.
    @inlinable public static var maximumPacketByteCount: Int {
        maximumByteCount + maximumPayloadByteCount + ICRC.byteCount
    }

    /// The bytes of the BTH and of the headers that follow it.
    @inlinable
    public var byteCount: Int { bth.opcode.headerByteCount }

    /// The bytes of the whole packet from the BTH to the ICRC, which are the payload of UDP.
    @inlinable
    public func packetByteCount(payloadByteCount: Int) -> Int {
        byteCount &+ payloadByteCount &+ Self.padCount(payloadByteCount: payloadByteCount) &+ ICRC.byteCount
    }

    /// BTH.PadCnt for a payload: the 0 to 3 zero bytes that fill it up to a multiple of four.
    @inlinable
    public static func padCount(payloadByteCount: Int) -> Int { (0 &- payloadByteCount) & 3 }
}

// MARK: - Emitting

extension PacketHeaders {
    /// Writes the headers alone, for a sender that sends payload, pad and ICRC from elsewhere.
    ///
    /// BTH.PadCnt is computed from `payloadByteCount`; `bth.padCount` is ignored.
    /// - Returns: the bytes written.
    /// - Throws: `PacketError.noRoom`, or `unknownOpcode` for a BTH.OpCode that is not known.
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

    /// Writes headers and pad of a packet in one buffer, and leaves the payload and the ICRC to the caller: the payload
    /// goes to the returned range, the ICRC (see `ICRC.store`) into the last four bytes of the packet.
    ///
    /// BTH.PadCnt is computed from `payloadByteCount`; `bth.padCount` is ignored.
    /// - Parameters:
    ///   - bytes: room for `packetByteCount(payloadByteCount:)` bytes; it may be longer.
    ///   - payloadByteCount: length of the payload in bytes, not negative.
    /// - Returns: the range of `bytes` for the payload.
    /// - Throws: `PacketError.noRoom`, or `unknownOpcode` for a BTH.OpCode that is not known.
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
        if headers.contains(.xrceth) { xrceth.emit(advancing: &next) }
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

    /// Reads the headers that follow the BTH, unchecked: all of them must be readable.
    @inlinable
    internal mutating func parseExtended(_ headers: ExtendedHeaders, at start: UnsafeRawPointer) {
        if headers.isEmpty { return }
        var next = start
        if headers.contains(.xrceth) { xrceth = .init(advancing: &next) }
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

// No local functions with captures: without optimisation their captures are on the heap.
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
