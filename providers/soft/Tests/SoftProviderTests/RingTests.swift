import Glibc
import RoCETransport
import RoCEWire
import TestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Rings in shared memory")
    struct RingTests {
        private let memory: UnsafeMutableRawPointer
        private let envelope = PacketEnvelope(
            source: GID(ipv4: 1), destination: GID(ipv4: 2), trafficClass: 3, hopLimit: 4, flowLabel: 5)

        init() {
            memory = .allocate(byteCount: PacketRing.strideByteCount, alignment: 4096)
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: PacketRing.strideByteCount)
        }

        /// Every test frees its ring.
        private func withRing(_ body: (UnsafeMutableRawPointer) throws -> Void) rethrows {
            defer { memory.deallocate() }
            try body(memory)
        }

        private func write(_ writer: inout PacketRingWriter, _ count: Int, _ seed: UInt8) -> Bool {
            guard let place = writer.reserve() else { return false }
            for index in 0..<count {
                place.storeBytes(of: seed &+ UInt8(truncatingIfNeeded: index), toByteOffset: index, as: UInt8.self)
            }
            return writer.commit(byteCount: count, envelope)
        }

        /// The next packet's length and first byte.
        private func read(_ reader: inout PacketRingReader) -> (count: Int, seed: UInt8)? {
            var found = PacketEnvelope(source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
            guard let packet = reader.next(&found) else { return nil }
            let isWhole = packet.indices.allSatisfy { packet[$0] == packet[0] &+ UInt8(truncatingIfNeeded: $0) }
            #expect(isWhole)
            #expect(found.source == envelope.source && found.destination == envelope.destination)
            #expect(found.trafficClass == 3 && found.hopLimit == 4 && found.flowLabel == 5)
            let result = (packet.count, packet[0])
            reader.release(byteCount: packet.count)
            return result
        }

        @Test("Packets of all lengths come out as they went in, many times around")
        func order() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)!
                var reader = PacketRingReader(ring)
                var seed: UInt8 = 0
                var random = SplitMix(seed: 512)
                // Some ten times around.
                for _ in 0..<600 {
                    var lengths: [Int] = []
                    for _ in 0..<Int.random(in: 1...8, using: &random) {
                        let length = Int.random(in: 16...Engine.packetRoom, using: &random)
                        #expect(write(&writer, length, seed &+ UInt8(lengths.count)))
                        lengths.append(length)
                    }
                    for length in lengths {
                        let packet = read(&reader)
                        #expect(packet?.count == length)
                        #expect(packet?.seed == seed)
                        seed &+= 1
                    }
                    #expect(read(&reader) == nil)
                }
            }
        }

        @Test("A full ring takes nothing more, until the reader has told how far it is")
        func full() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)!
                var reader = PacketRingReader(ring)
                var count = 0
                while write(&writer, 4000, 0) { count += 1 }
                #expect(count >= PacketRing.byteCount / PacketRing.maximumRecord - 2)
                for _ in 0..<count { #expect(read(&reader)?.count == 4000) }
                #expect(read(&reader) == nil)
                reader.publish()
                #expect(writer.isEmpty)
                #expect(write(&writer, 4000, 0))
            }
        }

        @Test("A writer that takes over goes on behind what its predecessor wrote")
        func successor() throws {
            withRing { ring in
                var first = PacketRingWriter(ring)!
                var reader = PacketRingReader(ring)
                for seed in 0..<100 as Range<UInt8> { #expect(write(&first, 3000, seed)) }
                for seed in 0..<50 as Range<UInt8> { #expect(read(&reader)?.seed == seed) }
                // Half a packet, never committed.
                first.reserve()!.storeBytes(of: .max, as: UInt64.self)
                var second = PacketRingWriter(ring)!
                for seed in 100..<110 as Range<UInt8> { #expect(write(&second, 3000, seed)) }
                for seed in 50..<110 as Range<UInt8> { #expect(read(&reader)?.seed == seed) }
                #expect(read(&reader) == nil)
            }
        }

        @Test(
            "A reader believes no word that leads out of the ring",
            arguments: [
                0x8000_0000, 0x8000_000F, 0x8000_FFFF, 0xFFFF_FFFF, 0x0000_0001, 0x4000_0000,
            ] as [UInt32])
        func lies(word: UInt32) throws {
            withRing { ring in
                var reader = PacketRingReader(ring)
                ring.storeBytes(of: word, toByteOffset: PacketRing.headerByteCount, as: UInt32.self)
                #expect(read(&reader) == nil)
                #expect(read(&reader) == nil)
                #expect(!reader.hasPacket || word == 0x4000_0000)
                if word != 0 { #expect(PacketRingWriter(ring) == nil || word & PacketRing.isWrap != 0) }
            }
        }

        @Test("A writer believes no position that cannot be")
        func wrongPosition() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)!
                ring.storeBytes(of: 1 << 40, toByteOffset: PacketRing.positionOffset, as: UInt64.self)
                var count = 0
                while write(&writer, 4000, 0) { count += 1 }
                #expect(count > 0 && count <= PacketRing.byteCount / 4000)
                ring.storeBytes(of: 12345, toByteOffset: PacketRing.positionOffset, as: UInt64.self)
                #expect(PacketRingWriter(ring) == nil)
            }
        }

        @Test("More pairs of addresses than the table holds: a new one waits until the reader has read everything")
        func manyAddresses() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)!
                var reader = PacketRingReader(ring)
                func send(_ number: UInt32) -> Bool {
                    var other = envelope
                    other.source = GID(ipv4: number)
                    guard writer.reserve() != nil else { return false }
                    return writer.commit(byteCount: 16, other)
                }
                for number in 0..<64 as Range<UInt32> { #expect(send(number)) }
                #expect(!send(64))
                #expect(send(63))
                var found = envelope
                var sources: [GID] = []
                while let packet = reader.next(&found) {
                    sources.append(found.source)
                    reader.release(byteCount: packet.count)
                }
                #expect(sources == (0..<64).map { GID(ipv4: $0) } + [GID(ipv4: 63)])
                reader.publish()
                #expect(send(64))
                #expect(reader.next(&found) != nil)
                #expect(found.source == GID(ipv4: 64))
            }
        }
    }

    @Suite("The registry")
    struct RegistryTests {
        @Test("Every registration has a slot of its own, which is free again afterwards")
        func slots() {
            let first = Registry()
            let slot: Int
            do {
                let second = Registry()
                slot = second.slot
                let (own, isAlive, isVacant) = (first.slot, first.isAlive(slot), first.whileVacant(slot) {})
                #expect(own != slot && isAlive && !isVacant)
            }
            var ran = false
            let (isAlive, isVacant) = (first.isAlive(slot), first.whileVacant(slot) { ran = true })
            #expect(!isAlive && isVacant && ran)
        }

        @Test("While a vacant slot is looked at, nobody can take it")
        func vacancy() {
            let first = Registry()
            var vacant = 0
            while vacant == first.slot || first.isAlive(vacant) { vacant += 1 }
            let slot = vacant
            _ = first.whileVacant(slot) {
                let taken = Registry().slot
                #expect(taken != slot)
            }
        }

        @Test("The directory is the user's own, and nobody else's to enter")
        func directory() throws {
            let registry = Registry()
            let path = registry.bellPath(1)
            defer { path.deallocate() }
            let folder = String(cString: path).split(separator: "/").dropLast().joined(separator: "/")
            var status = stat()
            #expect(stat("/" + folder, &status) == 0)
            #expect(status.st_uid == geteuid())
            #expect(status.st_mode & 0o777 == 0o700)
        }
    }
}
