import CIBVerbs
import CLinux
import CProviderABI
import Foundation
import ProviderKit
import RoCETransport
import RoCEWire
import SoftTestSupport
import Synchronization
import TestSupport
import Testing

@testable import SoftProvider

extension Soft {
    /// A process of the same user that writes nonsense into shared memory, and sends it on the connection.
    @Suite("A hostile process of the same user")
    struct HostileProcessTests {
        /// A device with one region in the middle of a larger block, all of whose other bytes must stay as they are.
        private final class Victim {
            static let guardByteCount = 1 << 16
            static let regionByteCount = 1 << 15
            let device: OpenDevice
            let honest: OpenDevice
            let block: UnsafeMutableRawBufferPointer
            let region: UnsafeMutablePointer<ibv_mr>
            let domain: UnsafeMutablePointer<ibv_pd>
            /// Queue pairs of the victim that are connected to the honest device, one for each of its queue pairs.
            private(set) var pairs: [(own: Endpoint, peer: Endpoint)] = []

            init(type: ibv_qp_type = IBV_QPT_RC, pairCount: Int = 1) throws {
                device = try OpenDevice()
                honest = try OpenDevice()
                domain = try created(device.table.alloc_pd(device.context))
                var options = Endpoint.Options()
                options.type = type
                for _ in 0..<pairCount {
                    let peer = try Endpoint(honest, options)
                    var ownOptions = options
                    ownOptions.domain = domain
                    let own = try Endpoint(device, ownOptions)
                    try own.connect(to: peer.address)
                    try peer.connect(to: own.address)
                    for _ in 0..<16 { try own.postReceive([own.sge(0, 1000)]) }
                    pairs.append((own, peer))
                }
                block = .allocate(byteCount: 2 * Self.guardByteCount + Self.regionByteCount, alignment: 4096)
                block.initializeMemory(as: UInt8.self, repeating: 0xA7)
                let start = block.baseAddress! + Self.guardByteCount
                region = try created(
                    device.table.reg_mr(
                        domain, start, Self.regionByteCount, UInt64(UInt(bitPattern: start)),
                        Endpoint.Options().access))
            }

            deinit {
                _ = device.table.dereg_mr(region)
                block.deallocate()
                pairs = []
                _ = device.table.dealloc_pd(domain)
            }

            var slot: Int { Int(pairs[0].own.pair.pointee.qp_num >> 16) }

            /// Whether the bytes around the region are unchanged.
            var isIntact: Bool {
                let guards = [0..<Self.guardByteCount, block.count - Self.guardByteCount..<block.count]
                return guards.allSatisfy { block[$0].allSatisfy { $0 == 0xA7 } }
            }

            /// Two other queue pairs of the devices exchange a message.
            func exchange() throws {
                let (a, b) = try SoftTestSupport.pair(on: honest, and: device)
                try b.postReceive([b.sge(0, 10_000)])
                a.fill(0, 10_000, seed: 3)
                try a.post(IBV_WR_SEND, [a.sge(0, 10_000)])
                try a.success()
                try b.success()
                #expect(a.bytes(0, 10_000) == b.bytes(0, 10_000))
            }
        }

        private func connect(_ slot: Int) throws -> Int32 {
            let end = ContinuousClock.now + .seconds(300)
            while true {
                let connection = Slot.connect(slot)
                if connection >= 0 { return connection }
                // The backlog is full until the victim has accepted.
                guard connection == -EAGAIN, ContinuousClock.now < end else { throw Refusal(-connection) }
                usleep(1000)
            }
        }

        private func hasEnded(_ connection: Int32) -> Bool {
            let end = ContinuousClock.now + .seconds(300)
            var message = (UInt64(0), UInt64(0))
            while ContinuousClock.now < end {
                var descriptor: Int32 = -1
                let count = linux_local_receive(connection, &message, 16, &descriptor)
                // The descriptors of the memory that the device shares.
                if descriptor >= 0 { close(descriptor) }
                if count < 0 && count != -EAGAIN { return true }
                if count < 0 { usleep(1000) }
            }
            return false
        }

        /// The number of descriptors of this process for the same file or socket.
        private func descriptors(like descriptor: Int32) -> Int {
            var wanted = stat()
            guard fstat(descriptor, &wanted) == 0, wanted.st_mode & S_IFMT != S_IFCHR else { return 1 }
            return (0..<4096).count { candidate in
                var found = stat()
                return fstat(Int32(candidate), &found) == 0 && found.st_dev == wanted.st_dev
                    && found.st_ino == wanted.st_ino
            }
        }

        // MARK: Messages

        /// Descriptors that are no packet ring: a socket, a file of another size, one that is not sealed, /dev/null.
        private func wrongDescriptors() throws -> [Int32] {
            var small: Int32 = -1
            var address: UnsafeMutableRawPointer?
            try check(linux_make_shared_memory("small", 4096, &small, &address))
            linux_unmap(address, 4096)
            let unsealed = linux_memory_file("unsealed")
            try check(linux_resize_file(unsealed, UInt64(PacketRing.strideByteCount)))
            let descriptors = [
                small, unsealed, open("/dev/null", O_RDWR), socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0),
            ]
            #expect(descriptors.allSatisfy { $0 >= 0 })
            return descriptors
        }

        @Test(
            "Random messages and descriptors end the connection with a warning, and nothing else",
            arguments: [1, 2, 3] as [UInt64])
        func messages(seed: UInt64) throws {
            let victim = try Victim()
            try victim.exchange()
            let wrong = try wrongDescriptors()
            defer { for descriptor in wrong { close(descriptor) } }
            var random = SplitMix(seed: seed)
            let text = try ProviderLog.during {
                var connection = try connect(victim.slot)
                for _ in 0..<1500 {
                    let length =
                        Bool.random(using: &random)
                        ? Int.random(in: 1...100, using: &random)
                        : Int.random(in: 1...2 * LocalMessage.maximumByteCount, using: &random)
                    var message = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
                    if length >= LocalMessage.headByteCount, Int.random(in: 0..<4, using: &random) != 0 {
                        message.withUnsafeMutableBytes { bytes in
                            bytes.storeBytes(of: LocalMessage.layout, as: UInt32.self)
                            bytes.storeBytes(
                                of: UInt32.random(in: 0...5, using: &random), toByteOffset: 4, as: UInt32.self)
                        }
                        if Bool.random(using: &random) {
                            message.removeLast(message.count - LocalMessage.headByteCount)
                        }
                    }
                    let descriptor = Bool.random(using: &random) ? -1 : wrong.randomElement(using: &random)!
                    let error = linux_local_send(connection, message, message.count, nil, 0, descriptor)
                    if error == EAGAIN {
                        usleep(100)
                    } else if error != 0 {
                        close(connection)
                        connection = try connect(victim.slot)
                    }
                }
                // The last message is invalid for certain.
                var head = (LocalMessage.layout ^ 1, LocalMessage.Kind.wake.rawValue)
                while linux_local_send(connection, &head, 8, nil, 0, -1) == EAGAIN { usleep(100) }
                #expect(hasEnded(connection))
                close(connection)
                try victim.exchange()
            }
            #expect(text.contains("its message is invalid or of another version of soft"), "\(text)")
            #expect(victim.isIntact)
            // All descriptors that were passed are closed: only those of this test are left.
            for descriptor in wrong { #expect(descriptors(like: descriptor) == 1) }
        }

        // MARK: Packet rings

        /// A ring that the victim reads, mapped twice.
        private func makeRing(
            for connection: Int32
        ) throws -> (ring: UnsafeMutableRawPointer, again: UnsafeMutableRawPointer) {
            var descriptor: Int32 = -1
            var memory: UnsafeMutableRawPointer?
            var again: UnsafeMutableRawPointer?
            try check(linux_make_shared_memory("ring", PacketRing.strideByteCount, &descriptor, &memory))
            defer { close(descriptor) }
            try check(linux_map_shared_memory(descriptor, PacketRing.strideByteCount, &again))
            try check(LocalMessage.send(.ring, on: connection, descriptor: descriptor))
            return (try #require(memory), try #require(again))
        }

        private func unmap(_ rings: (ring: UnsafeMutableRawPointer, again: UnsafeMutableRawPointer)) {
            linux_unmap(rings.ring, PacketRing.strideByteCount)
            linux_unmap(rings.again, PacketRing.strideByteCount)
        }

        /// A thread that changes bytes of packets in a ring until it is stopped.
        private final class Scribbler: Sendable {
            private let isOver = Atomic(false)
            private let ended = DispatchSemaphore(value: 0)

            init(_ ring: UnsafeMutableRawPointer, seed: UInt64) {
                let address = UInt(bitPattern: ring)
                Thread.detachNewThread { [self] in
                    var random = SplitMix(seed: seed)
                    let data = UnsafeMutableRawPointer(bitPattern: address)! + PacketRing.headerByteCount
                    while !isOver.load(ordering: .relaxed) {
                        // In the headers: the reader checks them, and uses them afterwards.
                        let line = Int.random(in: 0..<PacketRing.byteCount / PacketRing.line, using: &random)
                        let offset = Int.random(
                            in: PacketRing.packetOffset..<PacketRing.packetOffset + 32, using: &random)
                        (data + line * PacketRing.line + offset).storeBytes(
                            of: UInt8.random(in: 0...255, using: &random), as: UInt8.self)
                    }
                    ended.signal()
                }
            }

            func stop() {
                isOver.store(true, ordering: .relaxed)
                ended.wait()
            }
        }

        /// Packet `index` to queue pair `number` of the victim. The first ones are WRITEs that the honest peer could send;
        /// the others have random opcodes, addresses around the borders of the region, and lengths.
        private func write(
            _ packet: UnsafeMutableRawPointer, to victim: Victim, _ number: Int, index: Int, _ random: inout SplitMix
        ) -> Int {
            let (own, peer) = victim.pairs[number]
            let isGood = index < 4
            let write: Opcode = own.options.type == IBV_QPT_RC ? .rcWriteOnly : .ucWriteOnly
            let opcodes: [Opcode] = [
                .rcSendOnly, .rcSendFirst, .rcSendMiddle, .rcSendLast, .rcWriteOnly, .rcWriteFirst, .rcWriteMiddle,
                .rcWriteLast, .rcWriteOnlyWithImmediate, .rcReadRequest, .rcCompareAndSwap, .rcFetchAndAdd,
                .rcAcknowledge, .rcReadResponseFirst, .rcReadResponseOnly, .udSendOnly, .ucWriteOnly, .ucWriteFirst,
                .ucWriteMiddle, .ucWriteLast, .ucSendOnly,
            ]
            let length = isGood ? 12 + 16 + 1000 + 4 : Int.random(in: 16...1100, using: &random)
            for offset in 0..<length {
                packet.storeBytes(of: UInt8.random(in: 0...255, using: &random), toByteOffset: offset, as: UInt8.self)
            }
            BTH(
                opcode: isGood ? write : opcodes.randomElement(using: &random)!,
                destinationQPN: own.pair.pointee.qp_num, psn: PSN(peer.psn &+ UInt32(index)), migrated: true
            ).emit(at: packet)
            guard length >= 32, isGood || Int.random(in: 0..<8, using: &random) != 0 else { return length }
            let start = UInt64(UInt(bitPattern: victim.region.pointee.addr))
            let end = start + UInt64(Victim.regionByteCount)
            let places: [UInt64] =
                isGood ? [start, end - 1200] : [start, start - 64, end - 64, end - 1000, 0, .max - 100]
            let lengths: [UInt32] = isGood ? [1000] : [0, UInt32(length - 32), 1024, 65536, .max]
            let address = places.randomElement(using: &random)! &+ UInt64.random(in: 0...128, using: &random)
            packet.storeBytes(of: address.bigEndian, toByteOffset: 12, as: UInt64.self)
            packet.storeBytes(of: victim.region.pointee.rkey.bigEndian, toByteOffset: 20, as: UInt32.self)
            packet.storeBytes(of: lengths.randomElement(using: &random)!.bigEndian, toByteOffset: 24, as: UInt32.self)
            return length
        }

        @Test(
            "Packets that change while they are read write nothing outside registered memory",
            arguments: [1, 2, 3] as [UInt64], [IBV_QPT_RC, IBV_QPT_UC].map(\.rawValue))
        func changingPackets(seed: UInt64, type: UInt32) throws {
            // A queue pair of RC is in ERR after the first bad request, so each gets a few packets only.
            let victim = try Victim(type: ibv_qp_type(type), pairCount: 200)
            let connection = try connect(victim.slot)
            defer { close(connection) }
            let rings = try makeRing(for: connection)
            let (source, destination) = (try victim.pairs[0].peer.address.gid, try victim.pairs[0].own.address.gid)
            let envelope = PacketEnvelope(
                source: source.withUnsafeBytes { GID(at: $0.baseAddress!) },
                destination: destination.withUnsafeBytes { GID(at: $0.baseAddress!) }, trafficClass: 0, hopLimit: 1,
                flowLabel: 0)
            let scribbler = Scribbler(rings.again, seed: seed &+ 100)
            var random = SplitMix(seed: seed)
            var writer = PacketRingWriter(rings.ring)
            var sent = 0
            let packet = UnsafeMutableRawPointer.allocate(byteCount: Engine.packetRoom, alignment: 8)
            defer { packet.deallocate() }
            let end = ContinuousClock.now + .seconds(300)
            while sent < 4000, ContinuousClock.now < end {
                var envelope = envelope
                // A reference whose data is nonsense: the attacker may set the bit for any packet.
                envelope.isReference = sent % 20 > 3 && random.next() % 4 == 0
                // So may it acknowledge anything.
                envelope.acknowledged = random.next() % 4 == 0 ? PSN(UInt32(truncatingIfNeeded: random.next())) : nil
                let byteCount = write(packet, to: victim, sent / 20, index: sent % 20, &random)
                if writer.write(packet, byteCount: byteCount, envelope) == .full {
                    usleep(100)
                    continue
                }
                sent += 1
                if sent % 16 == 0 { _ = LocalMessage.send(.wake, on: connection) }
            }
            scribbler.stop()
            unmap(rings)
            #expect(sent == 4000)
            // Requests were executed, and not only dropped.
            let region = UnsafeRawBufferPointer(
                start: victim.region.pointee.addr, count: Victim.regionByteCount)
            #expect(region.contains { $0 != 0xA7 })
            #expect(victim.isIntact)
            try victim.exchange()
        }

        @Test("An invalid record ends the connection with a warning, and the device goes on")
        func invalidRecord() throws {
            for word in [0x8000_0000, 0x8000_FFFF, 0x0000_0001, 0x7FFF_FFFF] as [UInt32] {
                let victim = try Victim()
                let text = try ProviderLog.during {
                    let connection = try connect(victim.slot)
                    defer { close(connection) }
                    let rings = try makeRing(for: connection)
                    rings.ring.storeBytes(of: word, toByteOffset: PacketRing.headerByteCount, as: UInt32.self)
                    try check(LocalMessage.send(.wake, on: connection))
                    #expect(hasEnded(connection), "\(word)")
                    unmap(rings)
                    try victim.exchange()
                }
                #expect(text.contains("its packet ring holds an invalid record: "), "\(text)")
                #expect(victim.isIntact)
            }
        }
    }
}
