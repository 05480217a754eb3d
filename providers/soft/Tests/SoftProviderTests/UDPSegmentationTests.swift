import CIBVerbs
import CLinux
import Glibc
import RoCETransport
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

/// The UDP port of these tests.
private let segmentationPort: UInt16 = 14792

/// The sockets of soft0 without an engine. The tests queue the packets.
private final class Sender {
    var sockets: Sockets
    var segmentation: UDPSegmentation { sockets.segmentation }
    private var count = 0

    init(maxSegments: Int = UDPSegmentation.maxSegments) {
        let lo = if_nametoindex("lo")
        sockets = Sockets(port: segmentationPort, maxSegments: maxSegments)
        _ = sockets.follow(GIDTable(ifindex: lo), ifindex: lo)
    }

    /// Queues a packet of this length, with its number (0 for the first) after the BTH.
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
    /// A peer at 127.0.0.N, or at ::1, where the sender's socket first leaves the SO_REUSEPORT group.
    fileprivate static func at(_ last: UInt8, isIPv4: Bool, _ sender: Sender) throws -> RawPeer {
        if !isIPv4 { sender.sockets.retire() }
        return try RawPeer(at: isIPv4 ? mapped([127, 0, 0, last]) : loopback6, port: segmentationPort)
    }

    /// Receives `packets` packets, and returns the lengths of the packets of each batch. Expects that each packet has
    /// the ICRC of its index in the batch, and that they arrive in the order in which they were queued.
    fileprivate func lengths(packets: Int, sourceLocation: SourceLocation = #_sourceLocation) throws -> [[Int]] {
        var batches: [[Int]] = []
        var last = -1
        while batches.reduce(0, { $0 + $1.count }) < packets {
            let batch = try checkedBatch(sourceLocation: sourceLocation)
            for packet in batch {
                let number = Int(packet[BTH.byteCount]) | Int(packet[BTH.byteCount + 1]) << 8
                #expect(number > last, sourceLocation: sourceLocation)
                last = number
            }
            batches.append(batch.map(\.count))
        }
        return batches
    }

    /// Receives a batch or a single packet. Expects that each packet has the ICRC of its index in the batch.
    fileprivate func checkedBatch(sourceLocation: SourceLocation = #_sourceLocation) throws -> [[UInt8]] {
        let batch = try receiveBatch()
        for (index, packet) in batch.enumerated() {
            let trailer = packet.withUnsafeBytes { ICRC.trailer(of: $0) }
            #expect(
                trailer == icrc(packet, toPeer: true, index: index), "packet \(index)", sourceLocation: sourceLocation)
        }
        return batch
    }
}

extension OpenDevice {
    /// The state of the device's GSO batches.
    fileprivate var segmentation: UDPSegmentation {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.guarded.pointee.sockets.segmentation
    }
}

extension Soft {
    @Suite("GSO batches (UDP_SEGMENT)")
    struct UDPSegmentationTests {
        @Test("Consecutive packets of one length to one address form a batch, the last may be shorter; order is kept")
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
            #expect(sender.segmentation.sentBatches == 3)
        }

        @Test("A packet that is not expendable is sent alone; another traffic class or hop limit starts a new batch")
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

        @Test("A batch has at most 64 packets, and at most the payload of one IP packet", arguments: [true, false])
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
            #expect(sender.segmentation.sentBatches == 4)
        }

        @Test("If the kernel refuses a batch, its packets are sent singly, and GSO is off", arguments: [true, false])
        func refused(isIPv4: Bool) throws {
            // More segments than any kernel accepts: EINVAL.
            let sender = Sender(maxSegments: 400)
            let peer = try RawPeer.at(35, isIPv4: isIPv4, sender)
            for _ in 0..<2 { sender.queue(60, to: peer) }
            for _ in 0..<299 { sender.queue(28, to: peer) }
            sender.queue(20, to: peer)
            for _ in 0..<2 { sender.queue(40, to: peer) }
            sender.sockets.flush()
            // The first batch ends with one packet of 28 bytes.
            #expect(try peer.lengths(packets: 3) == [[60, 60, 28]])
            // The last batch was formed before the kernel refused the previous one.
            #expect(try peer.lengths(packets: 301) == [[Int]](repeating: [28], count: 298) + [[20], [40, 40]])
            #expect(!sender.segmentation.isSupported)
            for _ in 0..<3 { sender.queue(40, to: peer) }
            sender.sockets.flush()
            #expect(try peer.lengths(packets: 3) == [[40], [40], [40]])
        }

        @Test("A datagram that is held is sent after those that are queued later, once")
        func held() throws {
            let sender = Sender()
            let peer = try RawPeer.at(37, isIPv4: true, sender)
            sender.queue(20, to: peer, isExpendable: false)
            sender.sockets.holdFirst()
            for _ in 0..<2 { sender.queue(28, to: peer) }
            sender.sockets.flush()
            #expect(try (0..<2).map { _ in try peer.receiveBatch().map(\.count) } == [[28, 28], [20]])
            for length in [20, 28] { sender.queue(length, to: peer, isExpendable: false) }
            sender.sockets.flush()
            #expect(try (0..<2).map { _ in try peer.receiveBatch().map(\.count) } == [[20], [28]])
        }

        @Test(
            "A datagram that is held ends the batch of those that are queued later, if it fits there",
            arguments: [true, false])
        func heldInBatch(isIPv4: Bool) throws {
            let sender = Sender()
            let peer = try RawPeer.at(38, isIPv4: isIPv4, sender)
            let cases: [(later: [Int], batches: [[Int]])] = [
                ([28], [[28, 20]]), ([28, 28], [[28, 28, 20]]), ([20], [[20, 20]]), ([24, 40], [[24], [40, 20]]),
                ([28, 24], [[28, 24], [20]]), ([16], [[16], [20]]), ([], [[20]]),
            ]
            for (later, batches) in cases {
                sender.queue(20, to: peer)
                sender.sockets.holdFirst()
                for length in later { sender.queue(length, to: peer) }
                sender.sockets.flush()
                for batch in batches { #expect(try peer.checkedBatch().map(\.count) == batch) }
            }
            // A packet that may not be in a batch is sent alone, and so is one with other settings or to another address.
            sender.queue(20, to: peer, isExpendable: false)
            sender.sockets.holdFirst()
            sender.queue(28, to: peer)
            sender.sockets.flush()
            for length in [28, 20] { #expect(try peer.checkedBatch().map(\.count) == [length]) }
            sender.queue(20, to: peer, trafficClass: 4)
            sender.sockets.holdFirst()
            sender.queue(28, to: peer)
            sender.sockets.flush()
            for length in [28, 20] { #expect(try peer.checkedBatch().map(\.count) == [length]) }
            guard isIPv4 else { return }
            let other = try RawPeer.at(39, isIPv4: true, sender)
            sender.queue(20, to: other)
            sender.sockets.holdFirst()
            sender.queue(28, to: peer)
            sender.sockets.flush()
            #expect(try other.checkedBatch().map(\.count) == [20])
            #expect(try peer.checkedBatch().map(\.count) == [28])
        }

        @Test("Two devices over UDP: long messages arrive, sent in batches both ways", arguments: [0, 1] as [UInt8])
        func messages(gidIndex: UInt8) throws {
            let devices = try (0..<2).map { _ in try OpenDevice() }
            for device in devices { device.useDatagrams(port: segmentationPort) }
            var options = Endpoint.Options()
            options.gidIndex = gidIndex
            let (a, b) = try pair(options, on: devices[0], and: devices[1])
            let (length, peer) = (100_001, try b.address)
            a.fill(0, length, seed: 5)
            try b.postReceive([b.sge(0, length)])
            try a.post(IBV_WR_SEND, [a.sge(0, length)])
            try a.success()
            #expect(try b.success().byte_len == length)
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, length)]) {
                $0.wr.rdma.remote_addr = peer.memory + UInt64(length)
                $0.wr.rdma.rkey = peer.key
            }
            try a.success()
            try a.post(IBV_WR_RDMA_READ, [a.sge(length, length)]) {
                $0.wr.rdma.remote_addr = peer.memory + UInt64(length)
                $0.wr.rdma.rkey = peer.key
            }
            try a.success()
            let expected = a.bytes(0, length)
            #expect(b.bytes(0, length) == expected && b.bytes(length, length) == expected)
            #expect(a.bytes(length, length) == expected)
            #expect(devices.allSatisfy { $0.segmentation.sentBatches > 0 && $0.linkCounters.badICRC == 0 })
            #expect(devices.contains { $0.linkCounters.receivedBatches > 0 })
        }

        @Test("A peer that loses every batch receives every message, and segmentation pauses")
        func lostBatches() throws {
            let device = try OpenDevice()
            device.useDatagrams(port: segmentationPort)
            let peer = try RawPeer(at: RawPeer.mapped([127, 0, 0, 36]), port: segmentationPort)
            var options = Endpoint.Options()
            options.timeout = 12
            let a = try Endpoint(device, options)
            try a.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
            var expected = PSN(a.psn)
            var batches = 0
            for _ in 0..<20 where device.segmentation.isOn {
                try a.post(IBV_WR_SEND, [a.sge(0, 4000)])
                let end = expected &+ 4
                while expected != end {
                    let packets = try peer.receiveBatch()
                    if packets.count > 1 { batches += 1 }
                    guard packets.count == 1 else { continue }
                    let bth = try packets[0].withUnsafeBytes { try TransportPacket(parsing: $0) }.headers.bth
                    guard bth.psn == expected else { continue }
                    expected = expected.next
                    guard bth.acknowledgeRequest else { continue }
                    var ack = PacketHeaders(
                        BTH(opcode: .rcAcknowledge, destinationQPN: a.pair.pointee.qp_num, psn: bth.psn))
                    ack.aeth = AETH(syndrome: .ack, msn: 1)
                    peer.send(try peer.sealed(ack))
                }
                try a.success()
            }
            #expect(!device.segmentation.isOn && device.segmentation.isSupported)
            #expect((4...8).contains(batches), "\(batches)")
        }
    }

    @Suite("When acknowledgements are held")
    struct HeldAcknowledgementTests {
        @Test("After a call that comes late none is held for a while, which is twice as long each time")
        func pauses() {
            var held = HeldAcknowledgement()
            for _ in 0..<3 {
                let begins = held.begin(at: 1000)
                #expect(begins && held.since == 1000)
                held.end(at: 1000 + HeldAcknowledgement.lateAfter)
                #expect(held.since == 0)
            }
            var length = HeldAcknowledgement.shortestPause
            for _ in 0..<10 {
                let begins = held.begin(at: 1000)
                #expect(begins)
                held.end(at: 1001 + HeldAcknowledgement.lateAfter)
                for _ in 0..<length {
                    let beginsAgain = held.begin(at: 2000)
                    #expect(!beginsAgain && held.since == 0)
                }
                length = min(2 * length, HeldAcknowledgement.longestPause)
            }
        }
    }

    @Suite("When packets are sent in GSO batches")
    struct SegmentationDecisionTests {
        @Test("Repairs with few batches between them cause a pause, each twice as long as the one before")
        func pauses() {
            var segmentation = UDPSegmentation()
            var repairs: UInt64 = 0
            var now: UInt64 = 7
            for seconds in [1, 2, 4, 8] as [UInt64] {
                for _ in 0..<5 {
                    #expect(segmentation.isOn)
                    segmentation.countBatch()
                    repairs += 1
                    segmentation.evaluate(repairs: repairs, now: now)
                }
                #expect(!segmentation.isOn)
                // Losses from before the pause are not attributed to the batches after it.
                repairs += 10
                segmentation.evaluate(repairs: repairs, now: now + seconds * 1_000_000_000 - 1)
                #expect(!segmentation.isOn)
                now += seconds * 1_000_000_000
                segmentation.evaluate(repairs: repairs, now: now)
            }
            #expect(segmentation.isOn)
        }

        @Test("16 batches outweigh one repair")
        func outweighed() {
            var segmentation = UDPSegmentation()
            for repairs in 1...1000 as ClosedRange<UInt64> {
                for _ in 0..<16 { segmentation.countBatch() }
                segmentation.evaluate(repairs: repairs, now: repairs)
                #expect(segmentation.isOn)
            }
        }

        @Test("While no batches are sent, repairs are not attributed to GSO")
        func noBatches() {
            var segmentation = UDPSegmentation()
            segmentation.evaluate(repairs: 1000, now: 1)
            #expect(segmentation.isOn)
            segmentation.countBatch()
            segmentation.evaluate(repairs: 1000, now: 2)
            #expect(segmentation.isOn)
        }

        @Test("Segmentation that is disabled stays off")
        func off() {
            var segmentation = UDPSegmentation()
            segmentation.disable()
            segmentation.evaluate(repairs: 0, now: 1 << 62)
            #expect(!segmentation.isOn && !segmentation.isSupported)
        }
    }
}
