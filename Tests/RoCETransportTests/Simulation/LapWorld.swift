import RoCETransport
import RoCEWire

/// Two hosts with one connection, and a network that loses selected packets. It copies no packets and computes no ICRC,
/// so that it carries millions of packets per second.
final class LapWorld {
    let left: Host
    let right: Host
    let pair: QueuePair
    let peer: QueuePair
    /// Packets that both sides sent.
    private(set) var packets: UInt64 = 0
    /// Whether a packet is lost. Nil, the fast case, loses none.
    var loses: ((TransportPacket) -> Bool)?
    private var now: UInt64 = 1_000_000

    static let mtu = 256

    /// - Parameter psn: PSN of the left side's first packet.
    init(_ type: QueuePairType, psn: UInt32) throws {
        left = try Host(1, memory: 4 << 20)
        right = try Host(2, memory: 4 << 20)
        pair = try left.makeQueuePair(type, sqSigAll: true)
        peer = try right.makeQueuePair(type)
        var connection = Connection(mtu: UInt32(Self.mtu), psn: psn)
        // Not the network, whose window after losses makes READ requests so short that no response is First or Middle.
        connection.tag = 2
        connection.maxReadAtomic = 16
        connection.maxDestinationReadAtomic = 16
        try left.connect(pair, to: right.gid, number: peer.number, connection)
        try right.connect(peer, to: left.gid, number: pair.number, connection.reversed)
    }

    /// PSN of the next packet that the left side sends.
    var nextPSN: PSN { PSN(left.engine.attributes(of: pair).sqPSN) }

    /// Carries packets until none is left.
    func exchange() {
        var isMoving = true
        while isMoving {
            isMoving = false
            while carry(from: left, to: right) { isMoving = true }
            while carry(from: right, to: left) { isMoving = true }
        }
    }

    private func carry(from sender: Host, to receiver: Host) -> Bool {
        guard let packet = sender.engine.transmit(into: sender.packet, now: now) else { return false }
        packets += 1
        let bytes = UnsafeRawBufferPointer(rebasing: sender.packet[..<packet.byteCount])
        if let loses, let parsed = try? TransportPacket(parsing: bytes), loses(parsed) { return true }
        receiver.engine.receive(
            bytes,
            from: PacketSource(
                source: sender.gid, destination: receiver.gid, header: UnsafeRawBufferPointer(start: nil, count: 0)),
            now: now)
        return true
    }

    /// Advances the clock to the next timer.
    func waitForTimer() throws {
        let deadlines = [left.engine.nextDeadline, right.engine.nextDeadline].compactMap { $0 }
        guard let deadline = deadlines.min() else {
            throw Violation("a work request is not complete and no timer runs")
        }
        now = max(now, deadline)
        left.engine.advance(to: now)
        right.engine.advance(to: now)
    }
}
