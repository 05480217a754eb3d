import CIBVerbs
import CProviderABI
import Glibc
import Testing

@testable import SoftProvider

/// Who is at the two ends of a connection.
enum Ends: CaseIterable, CustomTestStringConvertible {
    /// One open device.
    case sameDevice
    /// Two open devices of one process, which reach each other as two processes do.
    case twoDevices

    var testDescription: String { self == .sameDevice ? "within one open device" : "between two open devices" }

    func open() throws -> (OpenDevice, OpenDevice) {
        let first = try OpenDevice()
        return (first, self == .sameDevice ? first : try OpenDevice())
    }
}

@Suite("soft: every operation, in one process")
struct LoopbackTests {
    @Test("RC SEND brings the data, and a completion to both sides", arguments: Ends.allCases, [0, 1] as [UInt8])
    func sends(ends: Ends, gidIndex: UInt8) throws {
        let (first, second) = try ends.open()
        var options = Endpoint.Options()
        options.gidIndex = gidIndex
        let (a, b) = try pair(options, on: first, and: second)
        for length in [0, 1, 8, 1023, 1024, 1025, 100_000] {
            a.fill(0, length, seed: UInt8(length & 0xFF))
            try b.postReceive(id: 7, [b.piece(0, 1 << 19)])
            try a.post(IBV_WR_SEND, id: 3, [a.piece(0, length)])
            #expect(try a.success().wr_id == 3)
            let received = try b.success()
            #expect(received.wr_id == 7)
            #expect(received.opcode == IBV_WC_RECV)
            #expect(received.byte_len == length)
            #expect(b.bytes(0, length) == a.bytes(0, length))
        }
    }
}
