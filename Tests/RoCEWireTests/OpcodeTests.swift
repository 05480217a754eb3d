import RoCEWire
import Testing

@Suite("Opcodes")
struct OpcodeTests {
    /// The table of BTH.OpCode of the specification, written independently of Opcode.swift: low five bits, operation,
    /// position in the message (first, middle, last, only), bytes of the extended headers.
    static let operations: [(low: UInt8, operation: Opcode.Operation, place: Character, extended: Int)] = [
        (0x00, .send, "f", 0), (0x01, .send, "m", 0), (0x02, .send, "l", 0), (0x03, .send, "l", 4),
        (0x04, .send, "o", 0), (0x05, .send, "o", 4),
        (0x06, .write, "f", 16), (0x07, .write, "m", 0), (0x08, .write, "l", 0), (0x09, .write, "l", 4),
        (0x0A, .write, "o", 16), (0x0B, .write, "o", 20),
        (0x0C, .readRequest, "o", 16),
        (0x0D, .readResponse, "f", 4), (0x0E, .readResponse, "m", 0), (0x0F, .readResponse, "l", 4),
        (0x10, .readResponse, "o", 4),
        (0x11, .acknowledge, "o", 4), (0x12, .atomicAcknowledge, "o", 12),
        (0x13, .compareAndSwap, "o", 28), (0x14, .fetchAndAdd, "o", 28),
        (0x16, .send, "l", 4), (0x17, .send, "o", 4),
        (0x1C, .flush, "o", 20), (0x1D, .atomicWrite, "o", 16),
    ]

    static func check(
        _ opcode: Opcode, _ row: (low: UInt8, operation: Opcode.Operation, place: Character, extended: Int)
    ) {
        #expect(opcode.operation == row.operation)
        #expect(opcode.headerByteCount == 12 + row.extended)
        #expect(opcode.headers.byteCount == row.extended)
        #expect(opcode.isFirst == (row.place == "f"))
        #expect(opcode.isMiddle == (row.place == "m"))
        #expect(opcode.isLast == (row.place == "l"))
        #expect(opcode.isOnly == (row.place == "o"))
        #expect(opcode.startsMessage == (row.place == "f" || row.place == "o"))
        #expect(opcode.endsMessage == (row.place == "l" || row.place == "o"))
        #expect(opcode.isResponse == (0x0D...0x12).contains(row.low))
        #expect(opcode.isRequest != opcode.isResponse)
        #expect(opcode.hasPayload == [.send, .write, .readResponse, .atomicWrite].contains(row.operation))
    }

    @Test("Every opcode of RC, UC, UD and XRC has the operation, position and headers of the specification")
    func table() {
        for row in Self.operations {
            Self.check(Opcode(rawValue: row.low), row)
            #expect(Opcode(rawValue: row.low).transport == .reliableConnection)
        }
        for row in Self.operations.prefix(12) {
            Self.check(Opcode(rawValue: 0x20 | row.low), row)
            #expect(Opcode(rawValue: 0x20 | row.low).transport == .unreliableConnection)
        }
        for row in Self.operations[4...5] {
            var row = row
            row.extended += 8
            Self.check(Opcode(rawValue: 0x60 | row.low), row)
            #expect(Opcode(rawValue: 0x60 | row.low).transport == .unreliableDatagram)
        }
        for row in Self.operations.dropLast(2) {
            let opcode = Opcode(rawValue: 0xA0 | row.low)
            var row = row
            if !(0x0D...0x12).contains(row.low) { row.extended += 4 }
            Self.check(opcode, row)
            #expect(opcode.transport == .extendedReliableConnection)
            #expect(opcode.headers.contains(.xrceth) == opcode.isRequest)
            #expect(opcode == Opcode(rawValue: row.low).on(.extendedReliableConnection))
        }
    }

    @Test("A CNP is neither request nor response, and has 16 reserved bytes")
    func congestionNotification() {
        let opcode = Opcode.congestionNotification
        #expect(opcode.rawValue == 0x81 && opcode.transport == .congestionNotification)
        #expect(!opcode.isRequest && !opcode.isResponse && !opcode.hasPayload)
        #expect(opcode.headerByteCount == 28)
    }

    @Test("All other values of BTH.OpCode have the operation unknown, and keep their value")
    func unknown() {
        let known = Set(
            Self.operations.map(\.low) + Self.operations.prefix(12).map { 0x20 | $0.low } + [0x64, 0x65, 0x81]
                + Self.operations.dropLast(2).map { 0xA0 | $0.low })
        for byte in UInt8.min...UInt8.max where !known.contains(byte) {
            let opcode = Opcode(rawValue: byte)
            #expect(!opcode.isKnown && opcode.operation == .unknown && opcode.rawValue == byte)
            #expect(!opcode.isFirst && !opcode.isMiddle && !opcode.isLast && !opcode.isOnly)
            #expect(!opcode.isRequest && !opcode.isResponse && !opcode.hasPayload && opcode.headers.isEmpty)
        }
    }

    @Test("Each opcode has the extended headers of the specification")
    func headers() {
        #expect(Opcode.rcSendOnly.headers == [])
        #expect(Opcode.rcWriteOnlyWithImmediate.headers == [.reth, .immDt])
        #expect(Opcode.ucWriteLastWithImmediate.headers == .immDt)
        #expect(Opcode.rcReadRequest.headers == .reth)
        #expect(Opcode.rcReadResponseMiddle.headers == [])
        #expect(Opcode.rcAtomicAcknowledge.headers == [.aeth, .atomicAckETH])
        #expect(Opcode.rcFetchAndAdd.headers == .atomicETH)
        #expect(Opcode.rcSendOnlyWithInvalidate.headers == .ieth)
        #expect(Opcode.rcFlush.headers == [.feth, .reth])
        #expect(Opcode.udSendOnlyWithImmediate.headers == [.deth, .immDt])
    }

    @Test("Each position in a SEND, RDMA WRITE or READ response has the opcode of the specification")
    func choosing() {
        #expect(Opcode.send(.reliableConnection, first: true, last: false, extra: .immediate) == .rcSendFirst)
        #expect(Opcode.send(.reliableConnection, first: false, last: false, extra: .invalidate) == .rcSendMiddle)
        #expect(Opcode.send(.reliableConnection, first: false, last: true) == .rcSendLast)
        #expect(
            Opcode.send(.reliableConnection, first: false, last: true, extra: .immediate) == .rcSendLastWithImmediate)
        #expect(
            Opcode.send(.reliableConnection, first: false, last: true, extra: .invalidate)
                == .rcSendLastWithInvalidate)
        #expect(
            Opcode.send(.reliableConnection, first: true, last: true, extra: .invalidate) == .rcSendOnlyWithInvalidate)
        #expect(Opcode.send(.unreliableDatagram, first: true, last: true) == .udSendOnly)
        #expect(
            Opcode.send(.unreliableDatagram, first: true, last: true, extra: .immediate) == .udSendOnlyWithImmediate)
        #expect(Opcode.write(.unreliableConnection, first: true, last: false, immediate: true) == .ucWriteFirst)
        #expect(Opcode.write(.unreliableConnection, first: false, last: false) == .ucWriteMiddle)
        #expect(Opcode.write(.unreliableConnection, first: false, last: true) == .ucWriteLast)
        #expect(
            Opcode.write(.unreliableConnection, first: false, last: true, immediate: true) == .ucWriteLastWithImmediate)
        #expect(Opcode.write(.reliableConnection, first: true, last: true) == .rcWriteOnly)
        #expect(
            Opcode.write(.reliableConnection, first: true, last: true, immediate: true) == .rcWriteOnlyWithImmediate)
        #expect(Opcode.readResponse(first: true, last: false) == .rcReadResponseFirst)
        #expect(Opcode.readResponse(first: false, last: false) == .rcReadResponseMiddle)
        #expect(Opcode.readResponse(first: false, last: true) == .rcReadResponseLast)
        #expect(Opcode.readResponse(first: true, last: true) == .rcReadResponseOnly)
    }
}
