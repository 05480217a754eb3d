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
        signalAll: Bool = true, configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        left = try Host(1, configure: configure)
        right = try Host(2, configure: configure)
        leftPair = try left.makeQueuePair(type, signalAll: signalAll)
        rightPair = try right.makeQueuePair(type, signalAll: signalAll)
        try left.connect(leftPair, to: right.gid, number: rightPair.number, connection)
        try right.connect(
            rightPair, to: left.gid, number: leftPair.number, rightConnection ?? connection.reversed)
        network = Network([left, right])
    }
}

@Suite("A reliable connection over a perfect network")
struct ConnectionTests {
    @Test(
        "SEND of every size from nothing to several packets arrives whole",
        arguments: [0, 1, 3, 1023, 1024, 1025, 5000])
    func send(size: Int) throws {
        let test = try ConnectedPair()
        let source = test.left.take(size)
        for index in 0..<size { source[index] = UInt8(truncatingIfNeeded: index &* 7) }
        let target = test.right.take(size + 10)
        #expect(test.right.postReceive(test.rightPair, id: 9, [test.right.element(target)]) == .success)
        #expect(
            test.left.post(test.leftPair, SendWorkRequest(id: 5, opcode: .send), [test.left.element(source)])
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
