/// The operation of a packet: byte 0 of the BTH (IBTA volume 1, 9.2.1, table "OpCode field").
///
/// An open type: a value that no specification names is carried, and says `.unknown` for its operation.
@frozen
public struct Opcode: RawRepresentable, Hashable, Sendable {
    /// The byte on the wire.
    public let rawValue: UInt8

    /// Any byte.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The transport service: the top three bits of an opcode.
    @frozen
    public struct Transport: RawRepresentable, Hashable, Sendable {
        /// The three bits, 0 to 7.
        public let rawValue: UInt8

        /// The low three bits of `rawValue`.
        @inlinable
        public init(rawValue: UInt8) { self.rawValue = rawValue & 7 }

        /// Reliable connection (RC).
        @inlinable public static var reliableConnection: Transport { Transport(rawValue: 0) }
        /// Unreliable connection (UC).
        @inlinable public static var unreliableConnection: Transport { Transport(rawValue: 1) }
        /// Unreliable datagram (UD).
        @inlinable public static var unreliableDatagram: Transport { Transport(rawValue: 3) }
        /// The congestion notification packet (RoCEv2 annex A17.9.3) has the transport bits to itself.
        @inlinable public static var congestionNotification: Transport { Transport(rawValue: 4) }
    }

    /// What a packet is about, whatever its place in a message.
    @frozen
    public enum Operation: UInt8, Hashable, Sendable {
        /// Reserved, vendor's, or of a service this package does not speak (RD, XRC).
        case unknown
        /// SEND, with or without immediate data or an R_Key to invalidate.
        case send
        /// RDMA WRITE, with or without immediate data.
        case write
        /// RDMA READ request.
        case readRequest
        /// RDMA READ response.
        case readResponse
        /// ACK, RNR NAK or NAK: the AETH says which.
        case acknowledge
        /// The response to an atomic request.
        case atomicAcknowledge
        /// Compare and swap of 8 bytes.
        case compareSwap
        /// Fetch and add of 8 bytes.
        case fetchAdd
        /// FLUSH (IBTA volume 1 release 1.5, annex A19).
        case flush
        /// ATOMIC WRITE of 8 bytes (annex A19).
        case atomicWrite
        /// Congestion notification.
        case congestionNotification
    }
}

// MARK: - The table

extension Opcode {
    /// One row of the table: bits 0-8 headers, 9 first, 10 last, 11 payload, 12 response, 16-23 operation,
    /// 24-31 bytes of the BTH and the extended headers together.
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

        @inlinable @inline(__always) static var first: UInt32 { 1 << 9 }
        @inlinable @inline(__always) static var last: UInt32 { 1 << 10 }
        @inlinable @inline(__always) static var only: UInt32 { first | last }
        @inlinable @inline(__always) static var middle: UInt32 { 0 }
        @inlinable @inline(__always) static var payload: UInt32 { 1 << 11 }
        @inlinable @inline(__always) static var response: UInt32 { 1 << 12 }

        @inlinable @inline(__always)
        func has(_ flags: UInt32) -> Bool { bits & flags == flags }

        @inlinable var isKnown: Bool { bits & 0xFF << 16 != 0 }
        @inlinable var headers: ExtendedHeaders { ExtendedHeaders(rawValue: UInt16(truncatingIfNeeded: bits & 0x1FF)) }
        @inlinable var headerByteCount: Int { Int(bits >> 24) }
    }

    /// Where an opcode stands in the table: RC by its low five bits, UC on the rows that it shares with RC, then UD and
    /// CNP. 0x1F is nobody's.
    @inlinable
    internal var index: UInt8 {
        switch rawValue {
        case 0x00...0x1F: rawValue
        case 0x20...0x2B: rawValue &- 0x20
        case 0x64, 0x65: rawValue &- 0x44
        case 0x81: 0x22
        default: 0x1F
        }
    }

    /// The whole table. A dense switch of constants, since the compiler makes of it a table in read-only data, which
    /// needs no initialisation and can be inlined into other modules.
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
        case 0x13: Row(.compareSwap, Row.only, .atomicETH)
        case 0x14: Row(.fetchAdd, Row.only, .atomicETH)
        case 0x16: Row(.send, Row.last | Row.payload, .ieth)
        case 0x17: Row(.send, Row.only | Row.payload, .ieth)
        case 0x1C: Row(.flush, Row.only, .feth.union(.reth))
        case 0x1D: Row(.atomicWrite, Row.only | Row.payload, .reth)
        // UD: 0x64, 0x65
        case 0x20: Row(.send, Row.only | Row.payload, .deth)
        case 0x21: Row(.send, Row.only | Row.payload, .deth.union(.immDt))
        // CNP: 0x81
        case 0x22: Row(.congestionNotification, Row.only, .congestionReserved)
        default: Row(.unknown, 0)
        }
    }

    /// The transport service this opcode belongs to.
    @inlinable
    public var transport: Transport { Transport(rawValue: rawValue >> 5) }

    /// What the packet is about; `.unknown` for an opcode that is not in the table.
    @inlinable
    public var operation: Operation {
        // Rows are made of operations only, so the bits always name one.
        Operation(rawValue: UInt8(truncatingIfNeeded: row.bits >> 16)) ?? .unknown
    }

    /// False for reserved opcodes and those of services that this package does not speak.
    @inlinable
    public var isKnown: Bool { row.isKnown }

    /// The headers between the BTH and the payload.
    @inlinable
    public var headers: ExtendedHeaders { row.headers }

    /// Bytes of the BTH and all extended headers: 12 to 40.
    @inlinable
    public var headerByteCount: Int { row.headerByteCount }

    /// True when a payload may follow the headers; it may be empty.
    @inlinable
    public var hasPayload: Bool { row.has(Row.payload) }

    /// True for the first packet of a message of several.
    @inlinable
    public var isFirst: Bool { row.bits & Row.only == Row.first }

    /// True for a packet that is neither the first nor the last of its message.
    @inlinable
    public var isMiddle: Bool { isKnown && row.bits & Row.only == Row.middle }

    /// True for the last packet of a message of several.
    @inlinable
    public var isLast: Bool { row.bits & Row.only == Row.last }

    /// True for a message of one packet.
    @inlinable
    public var isOnly: Bool { row.has(Row.only) }

    /// True for first and only packets.
    @inlinable
    public var startsMessage: Bool { row.has(Row.first) }

    /// True for last and only packets.
    @inlinable
    public var endsMessage: Bool { row.has(Row.last) }

    /// True for what a requester sends.
    @inlinable
    public var isRequest: Bool { isKnown && !isResponse && operation != .congestionNotification }

    /// True for what a responder sends: READ responses, acknowledgements and atomic acknowledgements.
    @inlinable
    public var isResponse: Bool { row.has(Row.response) }
}

// MARK: - Choosing an opcode

extension Opcode {
    /// What the last packet of a SEND or WRITE brings along.
    @frozen
    public enum Extra: UInt8, Hashable, Sendable {
        /// Nothing.
        case none
        /// Four bytes of immediate data.
        case immediate
        /// An R_Key to invalidate; SEND on RC only.
        case invalidate
    }

    /// The opcode of one packet of a SEND. `extra` is heeded on the packet that ends the message only.
    /// - Parameters:
    ///   - transport: RC, UC or UD; UD messages always are one packet.
    ///   - first: the packet starts the message.
    ///   - last: the packet ends the message.
    ///   - extra: what the message brings along.
    @inlinable
    public static func send(_ transport: Transport, first: Bool, last: Bool, extra: Extra = .none) -> Opcode {
        let operation: UInt8
        switch (first, last, extra) {
        case (true, false, _): operation = 0x00
        case (false, false, _): operation = 0x01
        case (false, true, .none): operation = 0x02
        case (false, true, .immediate): operation = 0x03
        case (true, true, .none): operation = 0x04
        case (true, true, .immediate): operation = 0x05
        case (false, true, .invalidate): operation = 0x16
        case (true, true, .invalidate): operation = 0x17
        }
        return Opcode(rawValue: transport.rawValue << 5 | operation)
    }

    /// The opcode of one packet of an RDMA WRITE. `immediate` is heeded on the packet that ends the message only.
    /// - Parameters:
    ///   - transport: RC or UC.
    ///   - first: the packet starts the message.
    ///   - last: the packet ends the message.
    ///   - immediate: the message carries immediate data.
    @inlinable
    public static func write(_ transport: Transport, first: Bool, last: Bool, immediate: Bool = false) -> Opcode {
        let operation: UInt8
        switch (first, last) {
        case (true, false): operation = 0x06
        case (false, false): operation = 0x07
        case (false, true): operation = immediate ? 0x09 : 0x08
        case (true, true): operation = immediate ? 0x0B : 0x0A
        }
        return Opcode(rawValue: transport.rawValue << 5 | operation)
    }

    /// The opcode of one packet of an RDMA READ response.
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
