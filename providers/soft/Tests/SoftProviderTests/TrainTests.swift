import CIBVerbs
import CLinux
import Glibc
import RoCETransport
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

/// The UDP port of these tests.
private let trainPort: UInt16 = 14792

/// The sockets of soft0 without the rest of it, to which packets are given by hand.
private final class Sender {
    var sockets: Sockets
    var trains: Trains { sockets.trains }
    private var count = 0

    init(trainLimit: Int = Trains.datagramLimit) {
        let lo = if_nametoindex("lo")
        sockets = Sockets(ifindex: lo, port: trainPort, trainLimit: trainLimit)
        sockets.follow(GIDTable(ifindex: lo))
    }

    /// Queues a packet of this length; the first is number 0, and says so behind its BTH.
    func queue(
        _ byteCount: Int, to peer: RawPeer, isExpendable: Bool = true, trafficClass: UInt8 = 0, hopLimit: UInt8 = 64
    ) {
        let path = Path(
            source: peer.loopback.withUnsafeBytes { GID(at: $0.baseAddress!) },
            destination: peer.gid.withUnsafeBytes { GID(at: $0.baseAddress!) }, trafficClass: trafficClass,
            hopLimit: hopLimit)
        let bytes = sockets.reserve()
        for index in 0..<byteCount { bytes.storeBytes(of: UInt8(index & 0xFF), toByteOffset: index, as: UInt8.self) }
        bytes.storeBytes(of: UInt32(count), toByteOffset: BTH.byteCount, as: UInt32.self)
        count += 1
        let isQueued = sockets.commit(byteCount: byteCount, path, isExpendable: isExpendable)
        #expect(isQueued)
    }
}

extension RawPeer {
    /// The peer of these tests at 127.0.0.N, or at ::1, which it then must have alone.
    fileprivate static func at(_ last: UInt8, isIPv4: Bool, _ sender: Sender) throws -> RawPeer {
        if !isIPv4 { sender.sockets.retire() }
        return try RawPeer(at: isIPv4 ? mapped([127, 0, 0, last]) : loopback6, port: trainPort)
    }

    /// Receives so many packets: the lengths of those in each train. Each must have the ICRC of its place there, and the
    /// order must be that in which they were queued.
    fileprivate func lengths(packets: Int, sourceLocation: SourceLocation = #_sourceLocation) throws -> [[Int]] {
        var trains: [[Int]] = []
        var last = -1
        while trains.reduce(0, { $0 + $1.count }) < packets {
            let train = try receiveTrain()
            for (place, packet) in train.enumerated() {
                let number = Int(packet[BTH.byteCount]) | Int(packet[BTH.byteCount + 1]) << 8
                #expect(number > last, sourceLocation: sourceLocation)
                last = number
                let trailer = packet.withUnsafeBytes { ICRC.trailer(of: $0) }
                #expect(
                    trailer == icrc(packet, toPeer: true, place: place), "packet \(number)",
                    sourceLocation: sourceLocation)
            }
            trains.append(train.map(\.count))
        }
        return trains
    }
}

extension OpenDevice {
    /// What has become of trains.
    fileprivate var trains: Trains {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.guarded.pointee.sockets.trains
    }
}

extension Soft {
    @Suite("Trains: many packets in one system call")
    struct TrainTests {
        @Test("Packets of one length to one address go in a train, of which the last may be shorter; the order stays")
        func composition() throws {
            let sender = Sender()
            let (a, b) = (
                try RawPeer.at(31, isIPv4: true, sender), try RawPeer.at(32, isIPv4: true, sender)
            )
            for length in [1040, 1040, 1040, 500, 1040] { sender.queue(length, to: a) }
            for length in [1040, 1040] { sender.queue(length, to: b) }
            for length in [1040, 1056, 1040] { sender.queue(length, to: a) }
            sender.sockets.flush()
            #expect(try a.lengths(packets: 8) == [[1040, 1040, 1040, 500], [1040], [1040], [1056, 1040]])
            #expect(try b.lengths(packets: 2) == [[1040, 1040]])
            #expect(sender.trains.sent == 3)
        }

        @Test("What must not be lost goes alone, and so does what has another traffic class or hop limit")
        func notTogether() throws {
            let sender = Sender()
            let peer = try RawPeer.at(33, isIPv4: true, sender)
            sender.queue(100, to: peer)
            sender.queue(100, to: peer, isExpendable: false)
            sender.queue(100, to: peer)
            sender.queue(100, to: peer, trafficClass: 4)
            sender.queue(100, to: peer, trafficClass: 4, hopLimit: 7)
            sender.queue(100, to: peer, trafficClass: 4, hopLimit: 7)
            sender.sockets.flush()
            #expect(try peer.lengths(packets: 6) == [[100], [100], [100], [100], [100, 100]])
        }

        @Test("A train has 64 packets at most, and what fits in one of IP", arguments: [true, false])
        func limits(isIPv4: Bool) throws {
            let sender = Sender()
            let peer = try RawPeer.at(34, isIPv4: isIPv4, sender)
            for _ in 0..<70 { sender.queue(20, to: peer) }
            sender.sockets.flush()
            #expect(try peer.lengths(packets: 70).map(\.count) == [64, 6])
            // 62 of them are 64,480 bytes.
            for _ in 0..<70 { sender.queue(1040, to: peer) }
            sender.sockets.flush()
            #expect(try peer.lengths(packets: 70).map(\.count) == [62, 8])
            #expect(sender.trains.sent == 4)
        }

        @Test("A train that the kernel refuses arrives all the same, and is the last one", arguments: [true, false])
        func refused(isIPv4: Bool) throws {
            // More than any kernel takes: EINVAL.
            let sender = Sender(trainLimit: 400)
            let peer = try RawPeer.at(35, isIPv4: isIPv4, sender)
            for _ in 0..<2 { sender.queue(60, to: peer) }
            for _ in 0..<299 { sender.queue(28, to: peer) }
            sender.queue(20, to: peer)
            for _ in 0..<2 { sender.queue(40, to: peer) }
            sender.sockets.flush()
            // The first one takes one of 28 bytes as its last.
            #expect(try peer.lengths(packets: 3) == [[60, 60, 28]])
            // The last one was made up before the kernel was asked.
            #expect(try peer.lengths(packets: 301) == [[Int]](repeating: [28], count: 298) + [[20], [40, 40]])
            #expect(!sender.trains.arePossible)
            for _ in 0..<3 { sender.queue(40, to: peer) }
            sender.sockets.flush()
            #expect(try peer.lengths(packets: 3) == [[40], [40], [40]])
        }

        @Test("Two devices over UDP: long messages go in trains both ways, and arrive", arguments: [0, 1] as [UInt8])
        func messages(gidIndex: UInt8) throws {
            let devices = try (0..<2).map { _ in try OpenDevice() }
            for device in devices { device.useDatagrams(port: trainPort) }
            var options = Endpoint.Options()
            options.gidIndex = gidIndex
            let (a, b) = try pair(options, on: devices[0], and: devices[1])
            let (length, peer) = (100_001, try b.address)
            a.fill(0, length, seed: 5)
            try b.postReceive([b.piece(0, length)])
            try a.post(IBV_WR_SEND, [a.piece(0, length)])
            try a.success()
            #expect(try b.success().byte_len == length)
            try a.post(IBV_WR_RDMA_WRITE, [a.piece(0, length)]) {
                $0.wr.rdma.remote_addr = peer.memory + UInt64(length)
                $0.wr.rdma.rkey = peer.key
            }
            try a.success()
            try a.post(IBV_WR_RDMA_READ, [a.piece(length, length)]) {
                $0.wr.rdma.remote_addr = peer.memory + UInt64(length)
                $0.wr.rdma.rkey = peer.key
            }
            try a.success()
            let expected = a.bytes(0, length)
            #expect(b.bytes(0, length) == expected && b.bytes(length, length) == expected)
            #expect(a.bytes(length, length) == expected)
            #expect(devices.allSatisfy { $0.trains.sent > 0 && $0.linkCounters.badICRC == 0 })
            #expect(devices.contains { $0.linkCounters.receivedTrains > 0 })
        }

        @Test("A peer that no train reaches gets every message, and before long no trains")
        func lostTrains() throws {
            let device = try OpenDevice()
            device.useDatagrams(port: trainPort)
            let peer = try RawPeer(at: RawPeer.mapped([127, 0, 0, 36]), port: trainPort)
            var options = Endpoint.Options()
            options.timeout = 12
            let a = try Endpoint(device, options)
            try a.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
            var expected = PSN(a.psn)
            var trains = 0
            for _ in 0..<20 where device.trains.areOn {
                try a.post(IBV_WR_SEND, [a.piece(0, 4000)])
                let end = expected &+ 4
                while expected != end {
                    let packets = try peer.receiveTrain()
                    if packets.count > 1 { trains += 1 }
                    guard packets.count == 1 else { continue }
                    let bth = try packets[0].withUnsafeBytes { try TransportPacket(parsing: $0) }.headers.bth
                    guard bth.psn == expected else { continue }
                    expected = expected.next
                    guard bth.acknowledgeRequest else { continue }
                    var ack = PacketHeaders(
                        BTH(opcode: .rcAcknowledge, destinationQP: a.pair.pointee.qp_num, psn: bth.psn))
                    ack.aeth = AETH(syndrome: .ack, msn: 1)
                    peer.send(try peer.sealed(ack))
                }
                try a.success()
            }
            #expect(!device.trains.areOn && device.trains.arePossible)
            #expect((4...8).contains(trains), "\(trains)")
        }
    }

    @Suite("When there are trains")
    struct TrainJudgementTests {
        @Test("Repairs with hardly a train between them lead to a rest, each twice as long as the one before")
        func rests() {
            var trains = Trains()
            var repairs: UInt64 = 0
            var now: UInt64 = 7
            for seconds in [1, 2, 4, 8] as [UInt64] {
                for _ in 0..<5 {
                    #expect(trains.areOn)
                    trains.noteSent()
                    repairs += 1
                    trains.judge(repairs: repairs, now: now)
                }
                #expect(!trains.areOn)
                // What was lost before the rest says nothing about those after it.
                repairs += 10
                trains.judge(repairs: repairs, now: now + seconds * 1_000_000_000 - 1)
                #expect(!trains.areOn)
                now += seconds * 1_000_000_000
                trains.judge(repairs: repairs, now: now)
            }
            #expect(trains.areOn)
        }

        @Test("A repair now and then is made up for by the trains between")
        func makesUp() {
            var trains = Trains()
            for repairs in 1...1000 as ClosedRange<UInt64> {
                for _ in 0..<16 { trains.noteSent() }
                trains.judge(repairs: repairs, now: repairs)
                #expect(trains.areOn)
            }
        }

        @Test("Where no trains were sent, repairs say nothing about them")
        func noTrains() {
            var trains = Trains()
            trains.judge(repairs: 1000, now: 1)
            #expect(trains.areOn)
            trains.noteSent()
            trains.judge(repairs: 1000, now: 2)
            #expect(trains.areOn)
        }

        @Test("Switched off, they stay so")
        func off() {
            var trains = Trains()
            trains.switchOff()
            trains.judge(repairs: 0, now: 1 << 62)
            #expect(!trains.areOn && !trains.arePossible)
        }
    }
}
