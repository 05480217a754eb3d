import CLinux
import Foundation
import RoCETransport
import RoCEWire
import SoftTestSupport
import TestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Messages between processes of this host")
    struct MessageTests {
        /// A sender: a connection to the slot, with the `Senders` that receive from it.
        private func withConnection(_ body: (Int32, inout Senders) throws -> Void) throws {
            let slot = Slot()
            guard var senders = Senders(slot) else {
                Issue.record("no descriptor")
                return
            }
            let connection = Slot.connect(slot.number)
            try #require(connection >= 0)
            defer { linux_close(connection) }
            try body(connection, &senders)
            _ = consume slot
        }

        /// Handles all ready descriptors. Returns the lengths of the packets that were received.
        private func receive(_ senders: inout Senders) -> [Int] {
            var packets: [Int] = []
            while true {
                var tags = [UInt64](repeating: 0, count: 16)
                let count = Int(linux_ready(senders.readyList, &tags, 16))
                if count == 0 { return packets }
                for tag in tags[..<count] {
                    if LocalTag.kind(tag) == LocalTag.listener {
                        senders.accept()
                    } else {
                        senders.receive(LocalTag.descriptor(tag), isAwake: false) { packet, _ in
                            packets.append(packet.count)
                        }
                    }
                }
                senders.dropEnded()
            }
        }

        private func message(_ kind: UInt32, layout: UInt32 = LocalMessage.layout, _ rest: Int = 0) -> [UInt8] {
            var bytes = [UInt8](repeating: 7, count: 8 + rest)
            bytes.withUnsafeMutableBytes {
                $0.storeBytes(of: layout, as: UInt32.self)
                $0.storeBytes(of: kind, toByteOffset: 4, as: UInt32.self)
            }
            return bytes
        }

        private func send(_ bytes: [UInt8], _ connection: Int32, descriptor: Int32 = -1) {
            _ = linux_local_send(connection, bytes, bytes.count, nil, 0, descriptor)
        }

        @Test("A ring is mapped once, and unmapped when its sender has ended")
        func ring() throws {
            try withConnection { connection, senders in
                var descriptor: Int32 = -1
                var memory: UnsafeMutableRawPointer?
                #expect(linux_make_shared_memory("test", PacketRing.strideByteCount, &descriptor, &memory) == 0)
                defer { linux_unmap(memory, PacketRing.strideByteCount) }
                #expect(LocalMessage.send(.ring, on: connection, descriptor: descriptor) == 0)
                #expect(receive(&senders).isEmpty)
                #expect(senders.count == 1 && senders.reader(0) != nil)
                // A second ring violates the protocol.
                #expect(LocalMessage.send(.ring, on: connection, descriptor: descriptor) == 0)
                linux_close(descriptor)
                #expect(receive(&senders).isEmpty)
                #expect(senders.count == 0)
                #expect(linux_local_has_ended(connection))
            }
        }

        @Test("A process that asks for counters gets no other answer, and keeps its connection")
        func counterRequest() throws {
            try withConnection { connection, senders in
                var question: UInt64 = LINUX_LOCAL_COUNTERS
                #expect(linux_local_send(connection, &question, 8, nil, 0, -1) == 0)
                #expect(receive(&senders).isEmpty)
                let (asked, again) = (senders.takeCounterRequest(), senders.takeCounterRequest())
                #expect(asked >= 0 && again == -1 && senders.count == 1)
                var report = CounterReport()
                report.addDevice("soft0")
                report.add("sent_pkts", 0)
                report.add("rcvd_bytes", .max)
                report.send(on: asked)
                var room = [UInt8](repeating: 0, count: Int(LINUX_LOCAL_COUNTERS_SIZE))
                var descriptor: Int32 = -1
                let count = linux_local_receive(connection, &room, room.count, &descriptor)
                #expect(
                    String(decoding: room.prefix(Int(count)), as: UTF8.self)
                        == "device soft0\nsent_pkts 0\nrcvd_bytes 18446744073709551615\n")
                // A longer message with the same beginning is not a question.
                send([UInt8](repeating: 0, count: 9), connection)
                #expect(receive(&senders).isEmpty)
                #expect(senders.count == 0 && linux_local_has_ended(connection))
            }
        }

        @Test("All counters fit in one message")
        func counterReportSize() {
            var report = CounterReport()
            report.addDevice("soft_a-name-of-64-bytes")
            var counters = Counters()
            counters.congestionNotifications = .max
            report.add(counters)
            report.add(LinkCounters())
            let lines = String(decoding: report.text, as: UTF8.self).split(separator: "\n")
            #expect(lines.count > 30 && Set(lines.map { $0.split(separator: " ")[0] }).count == lines.count)
            // With the longest values.
            #expect(report.text.count + 20 * lines.count < Int(LINUX_LOCAL_COUNTERS_SIZE))
        }

        @Test("A process that connects repeatedly does not block the device: connections are accepted in batches")
        func connectionsInBatches() {
            let slot = Slot()
            guard var senders = Senders(slot) else {
                Issue.record("no descriptor")
                return
            }
            let connections = (0..<100).map { _ in Slot.connect(slot.number) }
            defer { for connection in connections { linux_close(connection) } }
            senders.accept()
            let first = senders.count
            senders.accept()
            let all = senders.count
            #expect(first == 64 && all == 100)
            _ = consume slot
        }

        @Test("The packets in a ring that the receiver refuses are sent as messages")
        func refusedRing() throws {
            let slot = Slot()
            var (error, ringError) = (Int32(0), Int32(0))
            guard var peer = Peer(slot.number, error: &error, ringError: &ringError), ringError == 0 else {
                Issue.record("no way to the slot: \(error), \(ringError)")
                return
            }
            let connection = linux_local_accept(slot.listener)
            try #require(connection >= 0)
            defer { linux_close(connection) }
            var room = [UInt8](repeating: 0, count: LocalMessage.maximumByteCount)
            var descriptor: Int32 = -1
            let ringMessage = linux_local_receive(connection, &room, room.count, &descriptor)
            #expect(Int(ringMessage) == LocalMessage.headByteCount && descriptor >= 0)
            linux_close(descriptor)
            var envelope = PacketEnvelope(
                source: GID(ipv4: 1), destination: GID(ipv4: 2), trafficClass: 3, hopLimit: 4, flowLabel: 5)
            let acknowledged = [20: PSN(0), 1000: nil, 4096: PSN(0xFF_FFFF)]
            let packet = UnsafeMutableRawPointer.allocate(byteCount: Engine.packetRoom, alignment: 8)
            defer { packet.deallocate() }
            for length in [20, 1000, 4096] {
                packet.initializeMemory(as: UInt8.self, repeating: 9, count: length)
                envelope.acknowledged = acknowledged[length]!
                let isWritten = peer.writer!.write(packet, byteCount: length, envelope) == .written
                #expect(isWritten)
            }
            #expect(LocalMessage.send(.noRing, on: connection) == 0)
            let (refusal, hasRing) = (peer.receive(), peer.writer != nil)
            #expect(refusal == 0 && !hasRing)
            for length in [20, 1000, 4096] {
                let received = linux_local_receive(connection, &room, room.count, &descriptor)
                try #require(Int(received) == LocalMessage.packetOffset + length && descriptor == -1)
                room.withUnsafeBytes { bytes in
                    let message = UnsafeRawBufferPointer(rebasing: bytes[..<Int(received)])
                    #expect(LocalMessage.kind(of: message) == .packet)
                    let (packet, found) = LocalMessage.packet(in: message)
                    #expect(packet.allSatisfy { $0 == 9 } && found.destination == GID(ipv4: 2))
                    #expect(found.acknowledged == acknowledged[length]! && found.flowLabel == 5)
                }
            }
            #expect(linux_local_receive(connection, &room, room.count, &descriptor) == -EAGAIN)
            _ = consume peer
            _ = consume slot
        }

        enum Descriptor: CaseIterable {
            case none, pipe, small, large, unsealed, halfSealed, readOnly, file

            /// <sys/mman.h> declares it for _GNU_SOURCE only.
            private static let memfd_create = unsafeBitCast(
                dlsym(nil, "memfd_create"), to: (@convention(c) (UnsafePointer<CChar>, UInt32) -> Int32).self)

            func open() -> Int32 {
                var descriptor: Int32 = -1
                var memory: UnsafeMutableRawPointer?
                let size = PacketRing.strideByteCount
                switch self {
                case .none: return -1
                case .pipe:
                    var ends: [Int32] = [0, 0]
                    _ = Glibc.pipe(&ends)
                    linux_close(ends[1])
                    return ends[0]
                case .small, .large:
                    let other = self == .small ? size - 4096 : size + 4096
                    if linux_make_shared_memory("test", other, &descriptor, &memory) == 0 {
                        linux_unmap(memory, other)
                    }
                    return descriptor
                case .unsealed:
                    descriptor = linux_memory_file("test")
                    _ = linux_resize_file(descriptor, UInt64(size))
                    return descriptor
                case .halfSealed, .readOnly:
                    // F_ADD_SEALS of <linux/fcntl.h>: shrink and grow, or all seals of a ring and F_SEAL_WRITE.
                    descriptor = Self.memfd_create("test", 2)  // MFD_ALLOW_SEALING
                    _ = linux_resize_file(descriptor, UInt64(size))
                    _ = fcntl(descriptor, 1033, self == .halfSealed ? 2 | 4 : 1 | 2 | 4 | 8)
                    return descriptor
                case .file: return Glibc.open("/proc/self/exe", O_RDONLY)
                }
            }
        }

        @Test("A ring that is not sealed memory of the right size is refused", arguments: Descriptor.allCases)
        func wrongRing(_ wrong: Descriptor) throws {
            try withConnection { connection, senders in
                let descriptor = wrong.open()
                #expect((descriptor >= 0) == (wrong != .none))
                send(message(1), connection, descriptor: descriptor)
                if descriptor >= 0 { linux_close(descriptor) }
                #expect(receive(&senders).isEmpty)
                #expect(senders.count == 0 || senders.reader(0) == nil)
            }
        }

        @Test(
            "Descriptors of a message are closed: with a ring, a packet or an invalid message, one and several",
            arguments: [1, 2, 4, 5, 100, 253], [1, 2, 3, 4, 99] as [UInt32])
        func descriptors(count: Int, kind: UInt32) throws {
            // With SOCK_CLOEXEC: a program that another test starts at this moment must not keep a copy.
            var ends: [Int32] = [0, 0]
            let type = CInt(bitPattern: SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
            try #require(socketpair(AF_UNIX, type, 0, &ends) == 0)
            defer { linux_close(ends[1]) }
            try withConnection { connection, senders in
                sendDescriptors(count, of: ends[0], message(kind, kind == 2 ? 60 : 0), connection)
                linux_close(ends[0])
                #expect(receive(&senders).isEmpty)
                #expect(senders.count == 0 || senders.reader(0) == nil)
                // POLLHUP: no process has the other end open. A program between fork and exec has it for a moment.
                var state = pollfd(fd: ends[1], events: 0, revents: 0)
                #expect(poll(&state, 1, 60_000) == 1 && Int32(state.revents) & POLLHUP != 0)
            }
        }

        private func sendDescriptors(_ count: Int, of descriptor: Int32, _ bytes: [UInt8], _ connection: Int32) {
            var bytes = bytes
            // struct cmsghdr of 64-bit systems, then the descriptors.
            var control = [UInt8](repeating: 0, count: 16 + (4 * count + 7) / 8 * 8)
            control.withUnsafeMutableBytes { control in
                control.storeBytes(of: 16 + 4 * count, as: Int.self)
                control.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
                control.storeBytes(of: 1, toByteOffset: 12, as: Int32.self)
                for index in 0..<count {
                    control.storeBytes(of: descriptor, toByteOffset: 16 + 4 * index, as: Int32.self)
                }
            }
            bytes.withUnsafeMutableBytes { bytes in
                control.withUnsafeMutableBytes { control in
                    var part = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
                    withUnsafeMutablePointer(to: &part) { part in
                        var header = msghdr()
                        header.msg_iov = part
                        header.msg_iovlen = 1
                        header.msg_control = control.baseAddress
                        header.msg_controllen = control.count
                        #expect(sendmsg(connection, &header, 0) == bytes.count)
                    }
                }
            }
        }

        @Test("A packet is received unchanged; a message of another layout, kind or length ends the connection")
        func packets() throws {
            let head = LocalMessage.packetOffset - LocalMessage.headByteCount
            let kinds: [(bytes: [UInt8], isGood: Bool)] = [
                (message(2, head + 16), true), (message(2, head + Engine.packetRoom), true),
                (message(2, head + 15), false), (message(2, head + 1 + Engine.packetRoom), false), (message(2), false),
                (message(3), true), (message(3, 1), false), (message(4), false), (message(0), false),
                (message(5), false), (message(2, layout: 1, 60), false), ([1, 2, 3], false),
                ([UInt8](repeating: 0xFF, count: 100_000), false),
            ]
            for (bytes, isGood) in kinds {
                try withConnection { connection, senders in
                    send(bytes, connection)
                    let packets = receive(&senders)
                    #expect(packets == (isGood && bytes.count > 8 ? [bytes.count - LocalMessage.packetOffset] : []))
                    #expect(senders.count == (isGood ? 1 : 0), "\(bytes.prefix(8)), \(bytes.count)")
                }
            }
        }

        @Test("Random messages, with and without descriptors, map nothing and end only their own connection")
        func garbage() throws {
            var random = SplitMix(seed: 9)
            for _ in 0..<300 {
                try withConnection { connection, senders in
                    for _ in 0..<4 {
                        var bytes = message(
                            UInt32.random(in: 0...6, using: &random), Int.random(in: 0...5000, using: &random))
                        if Bool.random(using: &random) {
                            bytes[Int.random(in: 0..<8, using: &random)] = UInt8.random(in: 0...255, using: &random)
                        }
                        if Bool.random(using: &random) { bytes = Array(bytes[..<min(8, bytes.count)]) }
                        let descriptor = Descriptor.allCases.randomElement(using: &random)!.open()
                        send(bytes, connection, descriptor: descriptor)
                        if descriptor >= 0 { linux_close(descriptor) }
                        _ = receive(&senders)
                    }
                }
            }
        }

        @Test("Connections beyond the limit are refused, and the others continue to work")
        func manyConnections() throws {
            let slot = Slot()
            guard var senders = Senders(slot) else {
                Issue.record("no descriptor")
                return
            }
            var connections: [Int32] = []
            defer { for connection in connections { linux_close(connection) } }
            for _ in 0..<Senders.capacity + 10 {
                connections.append(Slot.connect(slot.number))
                try #require(connections.last! >= 0)
                senders.accept()
            }
            #expect(senders.count == Senders.capacity)
            #expect(linux_local_has_ended(connections.last!))
            send(message(2, LocalMessage.packetOffset - LocalMessage.headByteCount + 16), connections[0])
            #expect(receive(&senders) == [16])
            _ = consume slot
        }
    }
}
