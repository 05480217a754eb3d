import RoCETransport
import Testing

/// Two hosts with a connection between them.
struct ConnectedPair {
    let left: Host
    let right: Host
    let leftPair: QueuePair
    let rightPair: QueuePair
    let network: Network

    init(
        _ type: QueuePairType = .rc, _ connection: Connection = Connection(), right rightConnection: Connection? = nil,
        sqSigAll: Bool = true, configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        left = try Host(1, configure: configure)
        right = try Host(2, configure: configure)
        leftPair = try left.makeQueuePair(type, sqSigAll: sqSigAll)
        rightPair = try right.makeQueuePair(type, sqSigAll: sqSigAll)
        try left.connect(leftPair, to: right.gid, number: rightPair.number, connection)
        try right.connect(
            rightPair, to: left.gid, number: leftPair.number, rightConnection ?? connection.reversed)
        network = Network([left, right])
    }
}

@Suite("RC over a network without loss")
struct ConnectionTests {
    @Test(
        "A SEND of 0 bytes to several packets arrives completely",
        arguments: [0, 1, 3, 1023, 1024, 1025, 5000])
    func send(size: Int) throws {
        let test = try ConnectedPair()
        let source = test.left.take(size)
        for index in 0..<size { source[index] = UInt8(truncatingIfNeeded: index &* 7) }
        let target = test.right.take(size + 10)
        #expect(test.right.postReceive(test.rightPair, id: 9, [test.right.sge(target)]) == .success)
        #expect(
            test.left.post(test.leftPair, SendWQE(id: 5, opcode: .send), [test.left.sge(source)])
                == .success)
        test.network.run()
        let sent = test.left.poll()
        #expect(sent.map(\.id) == [5] && sent[0].status == .success && sent[0].opcode == .send)
        let received = test.right.poll()
        #expect(received.map(\.id) == [9] && received[0].status == .success && received[0].opcode == .receive)
        #expect(received[0].byteCount == UInt32(size))
        #expect(Array(target[..<size]) == Array(source))
    }
}
