import SystemPackage
import Testing
import Verbs

@Suite("Posting and polling")
struct DataPathTests {
    @Test("a send arrives with id, length and data")
    func send() throws {
        var pair = try Pair(Bench.open())
        try pair.right.queuePair.postReceive(try pair.right.region.slice(), id: 5)
        try pair.left.region.copyBytes(from: Array("hello".utf8).span.bytes)
        try pair.left.queuePair.post(.send, try pair.left.region.slice(0..<5), id: 3)
        let sent = try pair.left.next()
        #expect(sent.id == 3 && sent.status == .success && sent.opcode == .send)
        #expect(sent.queuePairNumber == pair.left.queuePair.number)
        let received = try pair.right.next()
        #expect(received.id == 5 && received.isSuccess && received.opcode == .receive && received.byteCount == 5)
        #expect(received.immediate == nil)
        #expect(try pair.right.region.copyBytes(0..<5) == Array("hello".utf8))
    }
}
