import CLinux
import Glibc
import RoCETransport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Connections to other devices of this host")
    struct PeerTests {
        /// A free slot, which the test holds until it closes the listener.
        private func listen() throws -> (slot: Int, listener: Int32) {
            for slot in 0..<Slot.count {
                let listener = listen(slot)
                if listener >= 0 { return (slot, listener) }
            }
            throw Errno.none
        }

        private enum Errno: Error { case none }

        private func listen(_ slot: Int) -> Int32 {
            withUnsafeBytes(of: Slot.name(slot)) { linux_local_listen($0.baseAddress) }
        }

        /// The kind of the next message on a connection, and its descriptor.
        private func receive(_ connection: Int32) -> (kind: LocalMessage.Kind?, descriptor: Int32) {
            var bytes = [UInt8](repeating: 0, count: LocalMessage.maximumByteCount)
            var descriptor: Int32 = -1
            let count = linux_local_receive(connection, &bytes, bytes.count, &descriptor)
            guard count > 0 else { return (nil, descriptor) }
            return (bytes[..<Int(count)].withUnsafeBytes { LocalMessage.kind(of: $0) }, descriptor)
        }

        private func withPeers(_ body: (inout Peers, inout Senders, Int) throws -> Void) throws {
            let slot = Slot()
            guard var senders = Senders(slot) else {
                Issue.record("no descriptor")
                return
            }
            var configuration = Configuration(seed: (1, 2))
            configuration.qpnPrefixBits = 8
            let engine = Engine(configuration)
            var peers = Peers(neighbors: engine.neighbors)
            try body(&peers, &senders, slot.number)
            _ = consume slot
            _ = consume engine
        }

        @Test("A receiver that is killed and starts again in the same slot gets a new ring")
        func restart() throws {
            try withPeers { peers, senders, own in
                let (slot, listener) = try listen()
                let made = peers.peer(slot, own: own, &senders, now: 1)
                let first = try #require(made)
                #expect(first.pointee.writer != nil)
                peers.touch(slot, first)
                let connection = linux_local_accept(listener)
                let (kind, descriptor) = receive(connection)
                #expect(kind == .ring && descriptor >= 0)
                for end in [descriptor, connection, listener] { linux_close(end) }

                let again = listen(slot)
                defer { linux_close(again) }
                try #require(again >= 0)
                // The ready list reports that the connection has ended.
                var tag: UInt64 = 0
                #expect(linux_ready(senders.readyList, &tag, 1) == 1 && tag == LocalTag.peer(slot))
                peers.receive(slot, allowsDirect: true)
                let wakesUs = peers.wakeTouched(own: own)
                #expect(!wakesUs)
                let recreated = peers.peer(slot, own: own, &senders, now: 2)
                let second = try #require(recreated)
                #expect(second.pointee.writer != nil)
                let other = linux_local_accept(again)
                defer { linux_close(other) }
                let (found, ring) = receive(other)
                #expect(found == .ring && ring >= 0)
                linux_close(ring)
            }
        }

        @Test("A receiver that refuses the ring gets the packets as messages, and the ring is unmapped")
        func refusedRing() throws {
            try withPeers { peers, senders, own in
                let (slot, listener) = try listen()
                defer { linux_close(listener) }
                let made = peers.peer(slot, own: own, &senders, now: 1)
                let peer = try #require(made)
                let connection = linux_local_accept(listener)
                defer { linux_close(connection) }
                linux_close(receive(connection).descriptor)
                #expect(LocalMessage.send(.noRing, on: connection) == 0)
                peers.receive(slot, allowsDirect: true)
                let same = peers.peer(slot, own: own, &senders, now: 2)
                #expect(same == peer)
                #expect(peer.pointee.writer == nil)
                let envelope = PacketEnvelope(
                    source: .init(ipv4: 1), destination: .init(ipv4: 2), trafficClass: 0, hopLimit: 1, flowLabel: 0)
                let packet = [UInt8](repeating: 1, count: 64)
                let hasRoomAtFirst = peer.pointee.hasRoom()
                #expect(hasRoomAtFirst)
                #expect(peer.pointee.send(packet, byteCount: 64, envelope) == 0)
                #expect(receive(connection) == (.packet, -1))
                // The receiver does not read: no message is lost, and the sender gets EAGAIN.
                var error: Int32 = 0
                while error == 0 { error = peer.pointee.send(packet, byteCount: 64, envelope) }
                let hasRoomWhenFull = peer.pointee.hasRoom()
                #expect(error == EAGAIN && !hasRoomWhenFull)
                // It has room again when they are read.
                while receive(connection).kind != nil {}
                let hasRoomAgain = peer.pointee.hasRoom()
                #expect(hasRoomAgain)
            }
        }

        @Test("A receiver without room is waited for; one that writes an invalid position, or ends, is not")
        func fullReceiver() throws {
            try withPeers { peers, senders, own in
                let (slot, listener) = try listen()
                defer { linux_close(listener) }
                let envelope = PacketEnvelope(
                    source: .init(ipv4: 1), destination: .init(ipv4: 2), trafficClass: 0, hopLimit: 1, flowLabel: 0)
                let packet = [UInt8](repeating: 1, count: 4096)
                for isHostile in [true, false] {
                    let made = peers.peer(slot, own: own, &senders, now: 1)
                    let peer = try #require(made)
                    let connection = linux_local_accept(listener)
                    defer { linux_close(connection) }
                    let (_, descriptor) = receive(connection)
                    defer { linux_close(descriptor) }
                    var memory: UnsafeMutableRawPointer?
                    #expect(linux_map_shared_memory(descriptor, PacketRing.strideByteCount, &memory) == 0)
                    let ring = try #require(memory)
                    defer { linux_unmap(ring, PacketRing.strideByteCount) }
                    while peer.pointee.hasRoom() {
                        let outcome = peer.pointee.writer!.write(packet, byteCount: 4096, envelope)
                        #expect(outcome == .written)
                    }
                    peers.noteFull(slot, peer, now: 1000)
                    peers.noteFull(slot, peer, now: 1000)
                    #expect(peers.fullCount == 1)
                    var found = peers.takeRoom(0, now: 1099, patience: 100)
                    #expect(found == (slot, .full) && !peers.isLate(slot))
                    found = peers.takeRoom(0, now: 1100, patience: 100)
                    #expect(found == (slot, .late) && peers.isLate(slot))
                    found = peers.takeRoom(0, now: 9000, patience: 100)
                    #expect(found == (slot, .full) && peers.fullCount == 1)
                    if isHostile {
                        PacketRing.position(ring).pointee.store(1 << 40, ordering: .releasing)
                    } else {
                        PacketRing.closed(ring).pointee.store(1, ordering: .releasing)
                    }
                    found = peers.takeRoom(0, now: 9001, patience: 100)
                    #expect(found == (slot, .free) && peers.fullCount == 0)
                    if isHostile { #expect(linux_local_has_ended(connection)) }
                }
            }
        }

        @Test("Any other message from a receiver ends the connection", arguments: [1, 2, 3, 5] as [UInt32])
        func wrongMessage(kind: UInt32) throws {
            try withPeers { peers, senders, own in
                let (slot, listener) = try listen()
                let first = peers.peer(slot, own: own, &senders, now: 1)
                #expect(first != nil)
                let connection = linux_local_accept(listener)
                linux_close(listener)
                linux_close(receive(connection).descriptor)
                var head = (LocalMessage.layout, kind)
                #expect(linux_local_send(connection, &head, 8, nil, 0, 2) == 0)
                peers.receive(slot, allowsDirect: true)
                #expect(linux_local_has_ended(connection))
                linux_close(connection)
                let gone = peers.peer(slot, own: own, &senders, now: 2)
                #expect(gone == nil)
            }
        }

        @Test("The connection to an empty slot is attempted again after 20 ms, not before")
        func emptySlot() throws {
            try withPeers { peers, senders, own in
                let (slot, listener) = try listen()
                linux_close(listener)
                let missing = peers.peer(slot, own: own, &senders, now: 1)
                let again = listen(slot)
                defer { linux_close(again) }
                let early = peers.peer(slot, own: own, &senders, now: 20_000_000)
                let late = peers.peer(slot, own: own, &senders, now: 20_000_001)
                #expect(missing == nil && early == nil && late != nil)
            }
        }
    }
}
