/// The opcode of a packet: BTH.OpCode, byte 0 of the BTH (IBTA volume 1, 9.2.1, table "OpCode field").
///
/// Every value is accepted; one that the specification does not define has the operation `.unknown`.
@frozen
public struct Opcode: RawRepresentable, Hashable, Sendable {
    /// The byte of BTH.OpCode on the wire.
    public let rawValue: UInt8

    /// Creates a BTH.OpCode from any byte.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The transport service: bits 7:5 of BTH.OpCode (IBTA volume 1, 9.2.1).
    @frozen
    public struct Transport: RawRepresentable, Hashable, Sendable {
        /// Bits 7:5 of BTH.OpCode, 0 to 7.
        public let rawValue: UInt8

        /// Creates bits 7:5 of BTH.OpCode from the low three bits of `rawValue`.
        @inlinable
        public init(rawValue: UInt8) { self.rawValue = rawValue & 7 }

        /// Reliable connection, RC (`IB_OPCODE_RC` in the kernel's rdma/ib_pack.h).
        @inlinable public static var reliableConnection: Transport { Transport(rawValue: 0) }
        /// Unreliable connection, UC (`IB_OPCODE_UC`).
        @inlinable public static var unreliableConnection: Transport { Transport(rawValue: 1) }
        /// Unreliable datagram, UD (`IB_OPCODE_UD`).
        @inlinable public static var unreliableDatagram: Transport { Transport(rawValue: 3) }
        /// Extended reliable connection, XRC (annex A14; `IB_OPCODE` 0xA0 to 0xBF).
        @inlinable public static var extendedReliableConnection: Transport { Transport(rawValue: 5) }
        /// Congestion notification packet, CNP (RoCEv2 annex A17.9.3; `IB_OPCODE_CNP`).
        @inlinable public static var congestionNotification: Transport { Transport(rawValue: 4) }
    }

    /// The operation of a BTH.OpCode, without the transport service and the position of the packet in its message.
    @frozen
    public enum Operation: UInt8, Hashable, Sendable {
        /// A BTH.OpCode that is reserved, manufacturer-specific, or of a transport service that is not supported (RD).
        case unknown
        /// SEND, with or without ImmDt or IETH (IBTA volume 1, 9.4.1).
        case send
        /// RDMA WRITE, with or without ImmDt (IBTA volume 1, 9.4.3).
        case write
        /// RDMA READ request (IBTA volume 1, 9.4.4).
        case readRequest
        /// RDMA READ response (IBTA volume 1, 9.4.4).
        case readResponse
        /// Acknowledge: an ACK, RNR NAK or NAK, as given by the AETH syndrome (IBTA volume 1, 9.7.5.2).
        case acknowledge
        /// ATOMIC acknowledge, the response to an atomic request (IBTA volume 1, 9.4.5).
        case atomicAcknowledge
        /// CmpSwap, compare and swap of 8 bytes (IBTA volume 1, 9.4.5).
        case compareAndSwap
        /// FetchAdd, fetch and add of 8 bytes (IBTA volume 1, 9.4.5).
        case fetchAndAdd
        /// FLUSH (IBTA volume 1 release 1.5, annex A19).
        case flush
        /// ATOMIC WRITE of 8 bytes (IBTA volume 1 release 1.5, annex A19).
        case atomicWrite
        /// Congestion notification (RoCEv2 annex A17.9.3).
        case congestionNotification
    }
}

// MARK: - The table

extension Opcode {
    /// One row of the table of opcodes (`struct rxe_opcode_info` of the kernel's rxe): bits 0-9 headers, 10 first, 11
    /// last, 12 payload, 13 response, 16-23 operation, 24-31 bytes of the BTH and the extended headers together.
    @frozen @usableFromInline
    internal struct Row {
        @usableFromInline let bits: UInt32

        @inlinable @inline(__always)
        init(bits: UInt32) { self.bits = bits }

        @inlinable @inline(__always)
        init(_ operation: Operation, _ flags: UInt32, _ headers: ExtendedHeaders = []) {
            bits =
                UInt32(headers.rawValue) | flags | UInt32(operation.rawValue) << 16
                | UInt32(truncatingIfNeeded: BTH.byteCount + headers.byteCount) << 24
        }

        @inlinable @inline(__always) static var first: UInt32 { 1 << 10 }
        @inlinable @inline(__always) static var last: UInt32 { 1 << 11 }
        @inlinable @inline(__always) static var only: UInt32 { first | last }
        @inlinable @inline(__always) static var middle: UInt32 { 0 }
        @inlinable @inline(__always) static var payload: UInt32 { 1 << 12 }
        @inlinable @inline(__always) static var response: UInt32 { 1 << 13 }

        @inlinable @inline(__always)
        func has(_ flags: UInt32) -> Bool { bits & flags == flags }

        @inlinable var isKnown: Bool { bits & 0xFF << 16 != 0 }
        @inlinable var headers: ExtendedHeaders { ExtendedHeaders(rawValue: UInt16(truncatingIfNeeded: bits & 0x3FF)) }
        @inlinable var headerByteCount: Int { Int(bits >> 24) }
    }

    /// The index of a BTH.OpCode in the table: RC by its low five bits, UC on the rows that it shares with RC, then UD,
    /// CNP and XRC. 0x1F is not defined.
    @inlinable
    internal var index: UInt8 {
        switch rawValue {
        case 0x00...0x1F: rawValue
        case 0x20...0x2B: rawValue &- 0x20
        case 0x64, 0x65: rawValue &- 0x44
        case 0x81: 0x22
        case 0xA0...0xB7: rawValue &- 0x7D
        default: 0x1F
        }
    }

    /// The row of this BTH.OpCode (`rxe_opcode[]` of the kernel's rxe). A dense switch of constants, since the compiler
    /// makes of it a table in read-only data, which needs no initialisation and can be inlined into other modules.
    /// OpcodeNames.swift has the names of the opcodes.
    @inlinable
    internal var row: Row {
        switch index {
        // RC and UC
        case 0x00: Row(.send, Row.first | Row.payload)
        case 0x01: Row(.send, Row.middle | Row.payload)
        case 0x02: Row(.send, Row.last | Row.payload)
        case 0x03: Row(.send, Row.last | Row.payload, .immDt)
        case 0x04: Row(.send, Row.only | Row.payload)
        case 0x05: Row(.send, Row.only | Row.payload, .immDt)
        case 0x06: Row(.write, Row.first | Row.payload, .reth)
        case 0x07: Row(.write, Row.middle | Row.payload)
        case 0x08: Row(.write, Row.last | Row.payload)
        case 0x09: Row(.write, Row.last | Row.payload, .immDt)
        case 0x0A: Row(.write, Row.only | Row.payload, .reth)
        case 0x0B: Row(.write, Row.only | Row.payload, .reth.union(.immDt))
        // RC alone
        case 0x0C: Row(.readRequest, Row.only, .reth)
        case 0x0D: Row(.readResponse, Row.response | Row.first | Row.payload, .aeth)
        case 0x0E: Row(.readResponse, Row.response | Row.middle | Row.payload)
        case 0x0F: Row(.readResponse, Row.response | Row.last | Row.payload, .aeth)
        case 0x10: Row(.readResponse, Row.response | Row.only | Row.payload, .aeth)
        case 0x11: Row(.acknowledge, Row.response | Row.only, .aeth)
        case 0x12: Row(.atomicAcknowledge, Row.response | Row.only, .aeth.union(.atomicAckETH))
        case 0x13: Row(.compareAndSwap, Row.only, .atomicETH)
        case 0x14: Row(.fetchAndAdd, Row.only, .atomicETH)
        case 0x16: Row(.send, Row.last | Row.payload, .ieth)
        case 0x17: Row(.send, Row.only | Row.payload, .ieth)
        case 0x1C: Row(.flush, Row.only, .feth.union(.reth))
        case 0x1D: Row(.atomicWrite, Row.only | Row.payload, .reth)
        // UD: 0x64, 0x65
        case 0x20: Row(.send, Row.only | Row.payload, .deth)
        case 0x21: Row(.send, Row.only | Row.payload, .deth.union(.immDt))
        // CNP: 0x81
        case 0x22: Row(.congestionNotification, Row.only, .congestionReserved)
        // XRC, 0xA0 to 0xB7: as RC, and requests have the XRCETH
        case 0x23: Row(.send, Row.first | Row.payload, .xrceth)
        case 0x24: Row(.send, Row.middle | Row.payload, .xrceth)
        case 0x25: Row(.send, Row.last | Row.payload, .xrceth)
        case 0x26: Row(.send, Row.last | Row.payload, .xrceth.union(.immDt))
        case 0x27: Row(.send, Row.only | Row.payload, .xrceth)
        case 0x28: Row(.send, Row.only | Row.payload, .xrceth.union(.immDt))
        case 0x29: Row(.write, Row.first | Row.payload, .xrceth.union(.reth))
        case 0x2A: Row(.write, Row.middle | Row.payload, .xrceth)
        case 0x2B: Row(.write, Row.last | Row.payload, .xrceth)
        case 0x2C: Row(.write, Row.last | Row.payload, .xrceth.union(.immDt))
        case 0x2D: Row(.write, Row.only | Row.payload, .xrceth.union(.reth))
        case 0x2E: Row(.write, Row.only | Row.payload, .xrceth.union(.reth).union(.immDt))
        case 0x2F: Row(.readRequest, Row.only, .xrceth.union(.reth))
        case 0x30: Row(.readResponse, Row.response | Row.first | Row.payload, .aeth)
        case 0x31: Row(.readResponse, Row.response | Row.middle | Row.payload)
        case 0x32: Row(.readResponse, Row.response | Row.last | Row.payload, .aeth)
        case 0x33: Row(.readResponse, Row.response | Row.only | Row.payload, .aeth)
        case 0x34: Row(.acknowledge, Row.response | Row.only, .aeth)
        case 0x35: Row(.atomicAcknowledge, Row.response | Row.only, .aeth.union(.atomicAckETH))
        case 0x36: Row(.compareAndSwap, Row.only, .xrceth.union(.atomicETH))
        case 0x37: Row(.fetchAndAdd, Row.only, .xrceth.union(.atomicETH))
        case 0x39: Row(.send, Row.last | Row.payload, .xrceth.union(.ieth))
        case 0x3A: Row(.send, Row.only | Row.payload, .xrceth.union(.ieth))
        default: Row(.unknown, 0)
        }
    }

    /// The transport service: bits 7:5 of BTH.OpCode.
    @inlinable
    public var transport: Transport { Transport(rawValue: rawValue >> 5) }

    /// The operation of this BTH.OpCode; `.unknown` for one that is not in the table.
    @inlinable
    public var operation: Operation {
        // Rows are made of operations only, so the bits always name one.
        Operation(rawValue: UInt8(truncatingIfNeeded: row.bits >> 16)) ?? .unknown
    }

    /// False for a BTH.OpCode that is reserved or of a service that is not supported.
    @inlinable
    public var isKnown: Bool { row.isKnown }

    /// The headers that follow the BTH, before the payload (IBTA volume 1, 9.2.1).
    @inlinable
    public var headers: ExtendedHeaders { row.headers }

    /// The bytes of the BTH and all headers that follow it: 12 to 44.
    @inlinable
    public var headerByteCount: Int { row.headerByteCount }

    /// True when a payload, which may be empty, can follow the headers (IBTA volume 1, 9.2.1).
    @inlinable
    public var hasPayload: Bool { row.has(Row.payload) }

    /// True for First: the first packet of a message of several (IBTA volume 1, 9.2.1).
    @inlinable
    public var isFirst: Bool { row.bits & Row.only == Row.first }

    /// True for Middle: neither the first nor the last packet of its message (IBTA volume 1, 9.2.1).
    @inlinable
    public var isMiddle: Bool { isKnown && row.bits & Row.only == Row.middle }

    /// True for Last: the last packet of a message of several (IBTA volume 1, 9.2.1).
    @inlinable
    public var isLast: Bool { row.bits & Row.only == Row.last }

    /// True for Only: a message of one packet (IBTA volume 1, 9.2.1).
    @inlinable
    public var isOnly: Bool { row.has(Row.only) }

    /// True for First and Only packets (IBTA volume 1, 9.2.1).
    @inlinable
    public var startsMessage: Bool { row.has(Row.first) }

    /// True for Last and Only packets (IBTA volume 1, 9.2.1).
    @inlinable
    public var endsMessage: Bool { row.has(Row.last) }

    /// True for a BTH.OpCode that a requester sends.
    @inlinable
    public var isRequest: Bool { isKnown && !isResponse && operation != .congestionNotification }

    /// True for a BTH.OpCode that a responder sends: RDMA READ responses, acknowledges and ATOMIC acknowledges.
    @inlinable
    public var isResponse: Bool { row.has(Row.response) }
}

// MARK: - Choosing an opcode

extension Opcode {
    /// The additional header of the last packet of a SEND or RDMA WRITE: ImmDt, IETH or none.
    @frozen
    public enum Extra: UInt8, Hashable, Sendable {
        /// Neither ImmDt nor IETH.
        case none
        /// ImmDt: four bytes of immediate data (`IBV_WR_SEND_WITH_IMM`, `IBV_WR_RDMA_WRITE_WITH_IMM`).
        case immediate
        /// IETH: an R_Key to invalidate (`IBV_WR_SEND_WITH_INV`). For a SEND on RC and XRC only.
        case invalidate
    }

    /// The BTH.OpCode of one packet of a SEND. `extra` applies only to the packet that ends the message.
    /// - Parameters:
    ///   - transport: RC, UC, XRC or UD; UD messages always are one packet.
    ///   - first: the packet starts the message.
    ///   - last: the packet ends the message.
    ///   - extra: the additional header of the last packet.
    @inlinable
    public static func send(_ transport: Transport, first: Bool, last: Bool, extra: Extra = .none) -> Opcode {
        let operation: Opcode
        switch (first, last, extra) {
        case (true, false, _): operation = .rcSendFirst
        case (false, false, _): operation = .rcSendMiddle
        case (false, true, .none): operation = .rcSendLast
        case (false, true, .immediate): operation = .rcSendLastWithImmediate
        case (true, true, .none): operation = .rcSendOnly
        case (true, true, .immediate): operation = .rcSendOnlyWithImmediate
        case (false, true, .invalidate): operation = .rcSendLastWithInvalidate
        case (true, true, .invalidate): operation = .rcSendOnlyWithInvalidate
        }
        return operation.on(transport)
    }

    /// The BTH.OpCode of one packet of an RDMA WRITE. `immediate` applies only to the packet that ends the message.
    /// - Parameters:
    ///   - transport: RC, UC or XRC.
    ///   - first: the packet starts the message.
    ///   - last: the packet ends the message.
    ///   - immediate: the message carries immediate data.
    @inlinable
    public static func write(_ transport: Transport, first: Bool, last: Bool, immediate: Bool = false) -> Opcode {
        let operation: Opcode
        switch (first, last) {
        case (true, false): operation = .rcWriteFirst
        case (false, false): operation = .rcWriteMiddle
        case (false, true): operation = immediate ? .rcWriteLastWithImmediate : .rcWriteLast
        case (true, true): operation = immediate ? .rcWriteOnlyWithImmediate : .rcWriteOnly
        }
        return operation.on(transport)
    }

    /// The BTH.OpCode of the same packet on another transport service, for a BTH.OpCode of RC, whose transport service
    /// is 0.
    /// - Parameter transport: RC, UC, XRC or UD.
    @inlinable
    public func on(_ transport: Transport) -> Opcode { Opcode(rawValue: transport.rawValue << 5 | rawValue) }

    /// The BTH.OpCode of one packet of an RDMA READ response, on RC.
    @inlinable
    public static func readResponse(first: Bool, last: Bool) -> Opcode {
        switch (first, last) {
        case (true, false): rcReadResponseFirst
        case (false, false): rcReadResponseMiddle
        case (false, true): rcReadResponseLast
        case (true, true): rcReadResponseOnly
        }
    }
}
