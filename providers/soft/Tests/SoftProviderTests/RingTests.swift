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
        private let packet = UnsafeMutableRawPointer.allocate(byteCount: Engine.packetRoom, alignment: 64)
        private let envelope = PacketEnvelope(
            source: GID(ipv4: 1), destination: GID(ipv4: 2), trafficClass: 3, hopLimit: 4, flowLabel: 5)

        /// The destination of a run whose records have these fields.
        private func destination(of envelope: PacketEnvelope) -> RunDestination {
            var path = Path(source: envelope.source, destination: envelope.destination)
            path.trafficClass = envelope.trafficClass
            path.hopLimit = envelope.hopLimit
            path.flowLabel = envelope.flowLabel
            return RunDestination(path: path, queuePair: 0, acknowledged: envelope.acknowledged)
        }

        init() {
            memory = .allocate(byteCount: PacketRing.strideByteCount, alignment: 4096)
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: PacketRing.strideByteCount)
        }

        /// Calls `body` with the ring, and frees it.
        private func withRing(_ body: (UnsafeMutableRawPointer) throws -> Void) rethrows {
            defer {
                memory.deallocate()
                packet.deallocate()
            }
            try body(memory)
        }

        private func write(_ writer: inout PacketRingWriter, _ count: Int, _ seed: UInt8) -> Bool {
            for index in 0..<count {
                packet.storeBytes(of: seed &+ UInt8(truncatingIfNeeded: index), toByteOffset: index, as: UInt8.self)
            }
            return writer.write(packet, byteCount: count, envelope) == .written
        }

        /// The length and the first byte of the next packet.
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

        @Test("Packets of all lengths are read unchanged and in order, across the end of the ring")
        func order() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                var seed: UInt8 = 0
                var random = SplitMix(seed: 512)
                // Wraps around about ten times.
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

        @Test("The PSN that a packet acknowledges is read as it was written")
        func acknowledged() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                packet.initializeMemory(as: UInt8.self, repeating: 1, count: Engine.packetRoom)
                var written = envelope
                var found = envelope
                for psn in [PSN(0), nil, PSN(0xFF_FFFF), PSN(0x12_3456), nil] {
                    written.acknowledged = psn
                    let outcome = writer.write(packet, byteCount: 32, written)
                    let read = reader.next(&found)
                    #expect(outcome == .written && read?.count == 32)
                    #expect(found.acknowledged == psn && found.flowLabel == 5 && !found.isReference)
                    reader.release(byteCount: 32)
                }
            }
        }

        @Test("Of the bytes behind a packet, none is written to the ring")
        func tail() throws {
            withRing { ring in
                packet.initializeMemory(as: UInt8.self, repeating: 0xEE, count: Engine.packetRoom)
                for count in 16...PacketRing.firstLine + 1 {
                    ring.initializeMemory(as: UInt8.self, repeating: 0, count: PacketRing.strideByteCount)
                    var writer = PacketRingWriter(ring)
                    let outcome = writer.write(packet, byteCount: count, envelope)
                    let data = UnsafeRawBufferPointer(
                        start: ring + PacketRing.headerByteCount + PacketRing.packetOffset, count: 256)
                    #expect(outcome == .written)
                    #expect(data[..<count].allSatisfy { $0 == 0xEE } && data[count...].allSatisfy { $0 == 0 })
                }
            }
        }

        @Test("The records of runs are read as runs or one by one, among other packets, across the end of the ring")
        func runs() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                var random = SplitMix(seed: 7)
                let seed = Opcode.rcSendOnly.rawValue
                // Wraps around about ten times.
                for round in 0..<6000 {
                    let count = Int.random(in: 1...PacketRingWriter.longestRun, using: &random)
                    let length = 16 + 4 * (round % 9)
                    var written = envelope
                    written.acknowledged = round % 4 == 0 ? PSN(UInt32(round)) : nil
                    guard let (records, first, header) = writer.beginRun(destination(of: written)) else {
                        Issue.record("there is no room for a run")
                        return
                    }
                    for number in 0..<count {
                        let record = records + number * PacketRing.line
                        // The reader finds no record behind this one.
                        #expect((record + PacketRing.line).load(as: UInt32.self) == 0)
                        for index in 0..<length {
                            record.storeBytes(
                                of: seed &+ UInt8(index), toByteOffset: PacketRing.packetOffset + index, as: UInt8.self)
                        }
                        let words = number == 0 ? first : header
                        record.storeBytes(of: words.1, toByteOffset: 8, as: UInt64.self)
                        let continues = number + 1 < count ? RunRecord.continues : 0
                        record.storeBytes(of: words.0 | UInt64(length) | continues, as: UInt64.self)
                    }
                    writer.endRun(count)
                    if round % 3 == 0 { #expect(write(&writer, 16 + round % 4000, seed &+ 1)) }
                    var left = count
                    while left > 0 {
                        var found = PacketEnvelope(
                            source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
                        if round % 2 == 0, let run = reader.run(&found) {
                            #expect(run.header == header.0 && run.lines > 0)
                            let continues = left > 1 ? RunRecord.continues : 0
                            #expect(run.first == (left == count ? first.0 : header.0) | UInt64(length) | continues)
                            #expect(found.source == envelope.source && found.destination == envelope.destination)
                            #expect(found.acknowledged == (left == count ? written.acknowledged : nil))
                            let part = min(left, run.lines, 3)
                            for number in 1..<part {
                                let record = run.records + number * PacketRing.line
                                let continues = left > number + 1 ? RunRecord.continues : 0
                                #expect(record.load(as: UInt64.self) == header.0 | UInt64(length) | continues)
                            }
                            reader.releaseRun(part)
                            left -= part
                        } else {
                            // At the end of the ring, the next packet is at its start.
                            #expect(read(&reader)?.count == length)
                            left -= 1
                        }
                    }
                    if round % 3 == 0 { #expect(read(&reader)?.count == 16 + round % 4000) }
                    var found = envelope
                    #expect(read(&reader) == nil && reader.run(&found) == nil)
                    if round % 5 == 0 { reader.publish() }
                }
            }
        }

        @Test("A full ring accepts no packet until the reader publishes its position")
        func full() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
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

        @Test("A ring that has room takes the longest packet, wherever it is to be written")
        func room() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                for round in 0..<300 {
                    // The next round begins elsewhere.
                    if round % 3 != 0 {
                        #expect(write(&writer, 16 + round, 0))
                        #expect(read(&reader) != nil)
                        reader.publish()
                    }
                    var count = 0
                    while writer.hasRoom() {
                        let isWritten = write(&writer, Engine.packetRoom, 1)
                        guard isWritten else {
                            Issue.record("a ring with room is full")
                            return
                        }
                        count += 1
                    }
                    #expect(count >= PacketRing.byteCount / PacketRing.maximumRecord - 4)
                    for _ in 0..<count { #expect(read(&reader)?.count == Engine.packetRoom) }
                    reader.publish()
                }
            }
        }

        @Test("If the writer dies in the middle of a packet, the reader reads the packets before it only")
        func halfWritten() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                // Repeated until the partial packet overlaps older ones, at every distance from the end of the ring.
                for round in 0..<400 {
                    let length = round % 2 == 0 ? 3000 + round : 16 + round % 40
                    for seed in 0..<7 as Range<UInt8> { #expect(write(&writer, length, seed)) }
                    // A packet without its first word, which is written last. The next ones overwrite it.
                    var dying = writer
                    #expect(write(&dying, 2000, 0))
                    let record = PacketRing.offset(dying.tail) - PacketRing.roundUp(PacketRing.packetOffset + 2000)
                    ring.storeBytes(of: 0, toByteOffset: PacketRing.headerByteCount + record, as: UInt64.self)
                    for seed in 0..<7 as Range<UInt8> { #expect(read(&reader)?.seed == seed) }
                    #expect(read(&reader) == nil && !reader.hasPacket && !reader.isBroken)
                    reader.publish()
                }
            }
        }

        @Test(
            "A reader rejects a record that extends past the ring",
            arguments: [
                0x8000_0000, 0x8000_000F, 0x8000_FFFF, 0xFFFF_FFFF, 0x0000_0001, 0x4000_0000,
            ] as [UInt32])
        func invalidRecord(word: UInt32) throws {
            withRing { ring in
                var reader = PacketRingReader(ring)
                ring.storeBytes(of: word, toByteOffset: PacketRing.headerByteCount, as: UInt32.self)
                #expect(read(&reader) == nil)
                #expect(read(&reader) == nil)
                #expect(!reader.hasPacket || word == 0x4000_0000)
            }
        }

        @Test("A writer rejects an invalid read position")
        func wrongPosition() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                ring.storeBytes(of: 1 << 40, toByteOffset: PacketRing.positionOffset, as: UInt64.self)
                var count = 0
                while write(&writer, 4000, 0) { count += 1 }
                #expect(count > 0 && count <= PacketRing.byteCount / 4000)
                // A position before the one that the reader published.
                ring.storeBytes(of: UInt64.max - 63, toByteOffset: PacketRing.positionOffset, as: UInt64.self)
                #expect(!write(&writer, 4000, 0))
            }
        }

        @Test("When the table of address pairs is full, a new pair waits until the reader has read everything")
        func manyAddresses() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                func send(_ number: UInt32) -> Bool {
                    var other = envelope
                    other.source = GID(ipv4: number)
                    return writer.write(packet, byteCount: 16, other) == .written
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

        @Test("At the end of an empty ring, a packet of a 65th pair of addresses is written", arguments: [false, true])
        func manyAddressesAtTheEnd(asRun: Bool) throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                var found = envelope
                func readAll() {
                    while let packet = reader.next(&found) { reader.release(byteCount: packet.count) }
                    reader.publish()
                }
                var number: UInt32 = 0
                while PacketRing.offset(writer.tail) + PacketRing.maximumRecord <= PacketRing.byteCount {
                    var other = envelope
                    other.source = GID(ipv4: min(number, 63))
                    #expect(writer.write(packet, byteCount: 16, other) == .written)
                    number += 1
                    readAll()
                }
                #expect(number > 64 && writer.isEmpty)
                var other = envelope
                other.source = GID(ipv4: 64)
                if asRun {
                    #expect(writer.beginRun(destination(of: other)) != nil)
                } else {
                    #expect(writer.write(packet, byteCount: 16, other) == .written)
                    #expect(reader.next(&found) != nil && found.source == GID(ipv4: 64))
                }
            }
        }

        @Test("A reader that takes a wrap without a packet behind it has emptied the ring")
        func wrapAlone() throws {
            withRing { ring in
                var writer = PacketRingWriter(ring)
                var reader = PacketRingReader(ring)
                // The reader leaves less room at the start of the ring than the longest packet needs.
                #expect(write(&writer, 64, 0) && read(&reader) != nil)
                reader.publish()
                var count = 0
                while write(&writer, 16, 1) { count += 1 }
                // The wrap is written, the packet behind it is not.
                #expect(PacketRing.offset(writer.tail) == 0 && !writer.isEmpty)
                for _ in 0..<count { #expect(read(&reader) != nil) }
                reader.publish()
                #expect(!writer.isEmpty)
                #expect(read(&reader) == nil)
                #expect(writer.isEmpty)
            }
        }
    }
}
