import CLinux
import RoCETransport
import RoCEWire
import Synchronization

/// A packet ring: a queue of packets in memory that two processes share. One writes, one reads, and each validates what
/// it reads. The writer makes the memory, sealed so that its size is fixed, and sends its descriptor to the reader.
///
/// The first page:
///
/// | offset | field |
/// |--------|-------|
/// | 0      | the reader's position |
/// | 64     | 1: the reader sleeps. The writer sets it to 0 after it has written, and then sends a wake-up |
/// | 128    | 1: the reader has closed the ring |
/// | 192    | the writer is inside an access to the reader's memory (RoCETransport.Hazard) |
/// | 1024   | table of address pairs |
///
/// The data is a ring of 64-byte lines. A record begins on a line and is contiguous:
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | bits 15:0: bytes of the packet; bit 27: `RunRecord.continues`; bit 28: bytes 12-15 are valid; bit 29: the packet is a reference (`OutgoingPacket.isReference`); bit 30: continue at the start of the ring; bit 31: the record is valid |
/// | 4    | index in the ring's table of address pairs |
/// | 5    | traffic class |
/// | 6    | hop limit |
/// | 7    | zero |
/// | 8-11 | flow label |
/// | 12-15 | the PSN that the packet acknowledges besides (`OutgoingPacket.acknowledged`) |
/// | 16   | the packet, from the BTH to the end of the ICRC, which is not filled in |
///
/// The writer first writes a zero to the line after the record, then the record, and its first word last. So the reader
/// stops at a zero and needs no index from the writer, and a writer that dies leaves no incomplete record.
///
/// What a small message costs is the way of its line between two caches. A reader that polls takes the line back after
/// each store, so a packet is made elsewhere, and stored in one go. The zero is written some lines ahead, so that no record
/// waits until the reader's cache has given up the next line as well.
enum PacketRing {
    /// Bytes of data, a power of two.
    static let byteCount = 512 << 10
    static let line = 64
    /// Bytes of the header before the data: the reader's position and the table of address pairs.
    static let headerByteCount = 4096
    /// Bytes of the whole ring.
    static let strideByteCount = headerByteCount + byteCount

    /// Offsets in the header.
    static let positionOffset = 0
    static let sleepingOffset = 64
    static let closedOffset = 128
    static let hazardOffset = 192
    static let pairOffset = 1024
    static let pairCount = 64
    static let pairByteCount = 32

    static let packetOffset = 16
    static let isRecord: UInt32 = 1 << 31
    static let isWrap: UInt32 = 1 << 30
    static let isReference: UInt32 = 1 << 29
    static let acknowledges: UInt32 = 1 << 28
    static let countMask: UInt32 = 0xFFFF
    /// The bytes of a packet that fit in the first line of its record, after the fields. Of a shorter packet the writer
    /// stores zeros up to there.
    static let firstLine = line - packetOffset
    /// The distance at which lines are cleared ahead, which the reader's cache gives up while some records are written.
    static let clearAhead = UInt64(8 * line)
    /// The distance at which lines are requested for writing. A store waits for its line, and all later ones wait for the
    /// store; requests do not wait for each other.
    static let requestAhead = UInt64(24 * line)
    /// Room for the longest record.
    static let maximumRecord = roundUp(packetOffset + Engine.packetRoom)

    static func roundUp(_ count: Int) -> Int { (count + line - 1) & ~(line - 1) }

    /// A position as an offset in the data.
    @inline(__always)
    static func offset(_ position: UInt64) -> Int { Int(position & UInt64(byteCount - 1)) }

    @inline(__always)
    static func word(_ pointer: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        pointer.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    @inline(__always)
    static func position(_ header: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (header + positionOffset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    static func sleeping(_ header: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        word(header + sleepingOffset)
    }

    @inline(__always)
    static func hazard(_ header: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (header + hazardOffset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    static func closed(_ header: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        word(header + closedOffset)
    }

    /// The bytes that a record with this first word occupies; nil when no valid record at this offset has it.
    static func extent(_ word: UInt32, at offset: Int) -> Int? {
        guard word & isRecord != 0 else { return nil }
        if word & isWrap != 0 { return byteCount - offset }
        let count = Int(word & countMask)
        let extent = roundUp(packetOffset + count)
        guard count >= BTH.byteCount + ICRC.byteCount, count <= Engine.packetRoom, offset + extent <= byteCount else {
            return nil
        }
        return extent
    }
}

/// The fields of the IP header that are delivered with a packet.
struct PacketEnvelope {
    var source: GID
    var destination: GID
    var trafficClass: UInt8
    var hopLimit: UInt8
    var flowLabel: UInt32
    /// Whether the packet is a reference (`OutgoingPacket.isReference`), for a receiver in shared memory only.
    var isReference = false
    /// The PSN that it acknowledges besides (`OutgoingPacket.acknowledged`), between devices of one host only.
    var acknowledged: PSN?
}

extension PacketEnvelope {
    /// That of a packet that the engine wrote.
    @inline(__always)
    init(of packet: UnsafePointer<OutgoingPacket>) {
        self.init(
            source: packet.pointee.path.source, destination: packet.pointee.path.destination,
            trafficClass: packet.pointee.path.trafficClass, hopLimit: packet.pointee.path.hopLimit,
            flowLabel: packet.pointee.path.flowLabel,
            isReference: packet.pointee.isReference, acknowledged: packet.pointee.acknowledged)
    }

    /// The addresses of a packet of a connection, which needs no IP header.
    @inline(__always)
    var addresses: PacketSource {
        PacketSource(
            source: source, destination: destination, header: UnsafeRawBufferPointer(start: nil, count: 0))
    }
}

/// Where a run of packets may begin in a ring.
struct PacketRun {
    let records: UnsafeMutableRawPointer
    /// The first word of the first record, and that of the others, without the bytes of the packet.
    let first: UInt64
    let header: UInt64
    /// The lines to the end of the ring.
    let lines: Int
}

/// The writing end of a ring.
struct PacketRingWriter {
    private let header: UnsafeMutableRawPointer
    private let data: UnsafeMutableRawPointer
    private(set) var tail: UInt64
    /// The reader's position when it was last read.
    private var seen: UInt64
    /// The lines from `tail` on whose first word is known to be zero: bit n is line n. A load would wait for the line.
    private var cleared: UInt64 = 0
    private var pairs = 0
    /// The address pair of the previous packet.
    private var lastSource = GID()
    private var lastDestination = GID()
    private var lastPair: UInt8 = 0

    /// Begins to write to a ring that is all zero. Its reader counts as sleeping until it clears the word.
    init(_ ring: UnsafeMutableRawPointer) {
        header = ring
        data = ring + PacketRing.headerByteCount
        seen = 0
        tail = 0
        PacketRing.sleeping(ring).pointee.store(1, ordering: .relaxed)
    }

    /// What became of a packet.
    enum Outcome {
        case written
        /// The ring has no room for it.
        case full
        /// The table of address pairs is full, and is used again when the ring is empty.
        case noPair
    }

    /// Writes a packet to the ring.
    /// - Parameter packet: An address with at least `PacketRing.firstLine` readable bytes, of which the packet has the first
    ///   `byteCount`. What follows the packet is not written to the ring, since it may be from a packet to another process.
    @inline(__always)
    mutating func write(
        _ packet: UnsafeRawPointer, byteCount: Int, _ envelope: borrowing PacketEnvelope
    ) -> Outcome {
        assert(byteCount >= BTH.byteCount + ICRC.byteCount && byteCount <= Engine.packetRoom, "a packet of the engine")
        // The pair first: it may wait until the ring is empty, and a wrap record would be in the ring.
        guard let pair = pair(envelope.source, envelope.destination) else { return .noPair }
        guard reserve() else { return .full }
        let record = data + PacketRing.offset(tail)
        var (first, second) = Self.header(
            pair, trafficClass: envelope.trafficClass, hopLimit: envelope.hopLimit, flowLabel: envelope.flowLabel)
        first |= UInt64(UInt32(truncatingIfNeeded: byteCount))
        if envelope.isReference { first |= UInt64(PacketRing.isReference) }
        if let acknowledged = envelope.acknowledged {
            first |= UInt64(PacketRing.acknowledges)
            second |= UInt64(acknowledged.rawValue) << 32
        }
        let end = tail &+ UInt64(PacketRing.roundUp(PacketRing.packetOffset + byteCount))
        clear(end)
        if byteCount <= PacketRing.firstLine {
            copyFirstLine(packet, byteCount: byteCount, to: record + PacketRing.packetOffset)
        } else {
            (record + PacketRing.packetOffset).copyMemory(from: packet, byteCount: byteCount)
        }
        record.storeBytes(of: second, toByteOffset: 8, as: UInt64.self)
        record.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(first, ordering: .releasing)
        advance(to: end)
        return .written
    }

    // MARK: Runs

    /// The most records of a run: the lines that are cleared ahead.
    static let longestRun = Int(PacketRing.clearAhead) / PacketRing.line

    /// Where a run of packets to this destination is written (`Engine.writeRun`), which has room for `longestRun` records: the
    /// first two words of the first record, which has the acknowledgement, and of the others. Nil when there is no room.
    @inline(__always)
    mutating func beginRun(
        _ target: RunDestination
    ) -> (records: UnsafeMutableRawPointer, first: (UInt64, UInt64), header: (UInt64, UInt64))? {
        // Where the longest record has room, a run has, too.
        guard let pair = pair(target.path.source, target.path.destination), reserve() else { return nil }
        // Behind each record there is a zero before the reader sees it.
        let lines: UInt64 = (1 << UInt64(Self.longestRun) &- 1) << 1
        if cleared & lines != lines { clearRun() }
        let header = Self.header(
            pair, trafficClass: target.path.trafficClass, hopLimit: target.path.hopLimit,
            flowLabel: target.path.flowLabel)
        var first = header
        if let acknowledged = target.acknowledged {
            first.0 |= UInt64(PacketRing.acknowledges)
            first.1 |= UInt64(acknowledged.rawValue) << 32
        }
        return (data + PacketRing.offset(tail), first, header)
    }

    @inline(never)
    private mutating func clearRun() {
        for line in 1...Self.longestRun where cleared >> line & 1 == 0 {
            PacketRing.word(data + PacketRing.offset(tail &+ UInt64(line &* PacketRing.line))).pointee.store(
                0, ordering: .relaxed)
            cleared |= 1 << line
        }
    }

    /// The first two words of a record, without the bytes of the packet, reference and acknowledgement.
    @inline(__always)
    private static func header(
        _ pair: UInt8, trafficClass: UInt8, hopLimit: UInt8, flowLabel: UInt32
    ) -> (UInt64, UInt64) {
        (
            UInt64(PacketRing.isRecord) | UInt64(pair) << 32 | UInt64(trafficClass) << 40 | UInt64(hopLimit) << 48,
            UInt64(flowLabel)
        )
    }

    /// Moves the tail behind the records of a run.
    @inline(__always)
    mutating func endRun(_ count: Int) {
        for _ in 0..<count { advance(to: tail &+ UInt64(PacketRing.line)) }
    }

    /// Copies a packet of one line in three stores, which need no call, with zeros after it.
    @inline(__always)
    private func copyFirstLine(_ packet: UnsafeRawPointer, byteCount: Int, to record: UnsafeMutableRawPointer) {
        let places = SIMD16<UInt8>(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
        let end = SIMD16(repeating: UInt8(truncatingIfNeeded: byteCount))
        for start in 0..<3 {
            let place = places &+ SIMD16(repeating: UInt8(truncatingIfNeeded: 16 * start))
            let bytes = packet.loadUnaligned(fromByteOffset: 16 * start, as: SIMD16<UInt8>.self)
            record.storeBytes(
                of: bytes.replacing(with: 0, where: place .>= end), toByteOffset: 16 * start, as: SIMD16<UInt8>.self)
        }
    }

    /// Whether everything written has been read.
    var isEmpty: Bool { PacketRing.position(header).pointee.load(ordering: .acquiring) == tail }

    /// Whether the next packet is written, whatever its length, if its address pair is in the table.
    @inline(__always)
    mutating func hasRoom() -> Bool {
        // The end of the ring may be too short for it.
        hasRoom(2 * (PacketRing.maximumRecord + PacketRing.line))
    }

    /// Whether the reader's position is one that it cannot have: it violates the protocol, and the ring stays full.
    var hasInvalidPosition: Bool {
        tail &- PacketRing.position(header).pointee.load(ordering: .acquiring) > UInt64(PacketRing.byteCount)
    }

    /// Makes the tail a place with room for the longest record. Returns false when the ring is full.
    @inline(__always)
    private mutating func reserve() -> Bool {
        let offset = PacketRing.offset(tail)
        if offset + PacketRing.maximumRecord > PacketRing.byteCount {
            guard hasRoom(PacketRing.byteCount - offset + PacketRing.line) else { return false }
            let start = tail &+ UInt64(PacketRing.byteCount - offset)
            clear(start)
            PacketRing.word(data + offset).pointee.store(PacketRing.isRecord | PacketRing.isWrap, ordering: .releasing)
            advance(to: start)
        }
        return hasRoom(PacketRing.maximumRecord + PacketRing.line)
    }

    /// Makes the first word of the line after a record zero, if it is not already.
    @inline(__always)
    private func clear(_ position: UInt64) {
        let lines = (position &- tail) / UInt64(PacketRing.line)
        if cleared >> lines & 1 != 0 { return }
        PacketRing.word(data + PacketRing.offset(position)).pointee.store(0, ordering: .relaxed)
    }

    /// Moves the tail behind a record that was written, and clears a line ahead if the reader has read it.
    @inline(__always)
    private mutating func advance(to next: UInt64) {
        cleared >>= (next &- tail) / UInt64(PacketRing.line)
        tail = next
        linux_prefetch_to_write(data + PacketRing.offset(next &+ PacketRing.requestAhead))
        let ahead = next &+ PacketRing.clearAhead
        guard ahead &+ UInt64(PacketRing.line) &- seen <= UInt64(PacketRing.byteCount) else { return }
        PacketRing.word(data + PacketRing.offset(ahead)).pointee.store(0, ordering: .relaxed)
        cleared |= 1 << (PacketRing.clearAhead / UInt64(PacketRing.line))
    }

    @inline(__always)
    private mutating func hasRoom(_ count: Int) -> Bool {
        let limit = UInt64(PacketRing.byteCount - count)
        if tail &- seen <= limit { return true }
        let position = PacketRing.position(header).pointee.load(ordering: .acquiring)
        // A position ahead of the writer's, or behind the previous one, is invalid: the ring then has no free space.
        if tail &- position > UInt64(PacketRing.byteCount) { return false }
        seen = position
        return tail &- seen <= limit
    }

    @inline(__always)
    private mutating func pair(_ source: GID, _ destination: GID) -> UInt8? {
        if pairs > 0 && source == lastSource && destination == lastDestination { return lastPair }
        return findPair(source, destination)
    }

    /// Finds a pair in the table, or adds it. A full table is cleared once the reader has read all packets that refer
    /// to it.
    private mutating func findPair(_ source: GID, _ destination: GID) -> UInt8? {
        var index = 0
        while index < pairs, readPair(header, index) != (source, destination) { index += 1 }
        if index == PacketRing.pairCount {
            guard isEmpty else { return nil }
            index = 0
            pairs = 0
        }
        if index == pairs {
            pairs += 1
            let place = header + PacketRing.pairOffset + index * PacketRing.pairByteCount
            place.storeBytes(of: source, as: GID.self)
            place.storeBytes(of: destination, toByteOffset: 16, as: GID.self)
        }
        lastSource = source
        lastDestination = destination
        lastPair = UInt8(truncatingIfNeeded: index)
        return lastPair
    }
}

/// The reading end of a ring.
struct PacketRingReader {
    private let header: UnsafeMutableRawPointer
    private let data: UnsafeMutableRawPointer
    private var head: UInt64
    private var published: UInt64
    /// The ring holds an invalid record. It is not read any more.
    private(set) var isBroken = false

    /// Begins to read a ring from its start.
    init(_ ring: UnsafeMutableRawPointer) {
        header = ring
        data = ring + PacketRing.headerByteCount
        head = 0
        published = 0
    }

    /// Whether a packet can be read.
    @inline(__always)
    var hasPacket: Bool {
        !isBroken && PacketRing.word(data + PacketRing.offset(head)).pointee.load(ordering: .acquiring) != 0
    }

    /// The next packet, in place and valid until `release`; nil when there is none.
    @inline(__always)
    mutating func next(_ envelope: inout PacketEnvelope) -> UnsafeRawBufferPointer? {
        if isBroken { return nil }
        var record = data + PacketRing.offset(head)
        var word = PacketRing.word(record).pointee.load(ordering: .acquiring)
        if word == 0 { return nil }
        if word & PacketRing.isWrap != 0 {
            head &+= UInt64(PacketRing.byteCount - PacketRing.offset(head))
            record = data
            word = PacketRing.word(record).pointee.load(ordering: .acquiring)
            if word == 0 {
                // The writer may wait until the ring is empty, and there is no packet whose release would publish this.
                publish()
                return nil
            }
        }
        guard word & PacketRing.isWrap == 0, PacketRing.extent(word, at: PacketRing.offset(head)) != nil else {
            isBroken = true
            return nil
        }
        let pair = Int(record.load(fromByteOffset: 4, as: UInt8.self)) & (PacketRing.pairCount - 1)
        (envelope.source, envelope.destination) = readPair(header, pair)
        envelope.trafficClass = record.load(fromByteOffset: 5, as: UInt8.self)
        envelope.hopLimit = record.load(fromByteOffset: 6, as: UInt8.self)
        envelope.flowLabel = record.load(fromByteOffset: 8, as: UInt32.self)
        envelope.isReference = word & PacketRing.isReference != 0
        envelope.acknowledged =
            word & PacketRing.acknowledges == 0 ? nil : PSN(record.load(fromByteOffset: 12, as: UInt32.self))
        return UnsafeRawBufferPointer(
            start: record + PacketRing.packetOffset, count: Int(word & PacketRing.countMask))
    }

    /// The records of a run that may begin with the next packet, for `Engine.receiveRun`; nil when it is another packet, or
    /// there is none. Sets those fields of the envelope that a connection uses.
    @inline(__always)
    func run(_ envelope: inout PacketEnvelope) -> PacketRun? {
        let offset = PacketRing.offset(head)
        let record = data + offset
        let word = record.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .acquiring)
        let others = UInt64(PacketRing.isWrap | PacketRing.isReference)
        guard word & (others | UInt64(PacketRing.isRecord)) == UInt64(PacketRing.isRecord), !isBroken,
            UInt64(PacketRing.firstLine) >= word & RunRecord.countMask,
            UInt64(BTH.byteCount + ICRC.byteCount) <= word & RunRecord.countMask,
            record.load(fromByteOffset: PacketRing.packetOffset, as: UInt8.self) == Opcode.rcSendOnly.rawValue
        else { return nil }
        (envelope.source, envelope.destination) = readPair(header, Int(word >> 32) & (PacketRing.pairCount - 1))
        envelope.acknowledged =
            word & UInt64(PacketRing.acknowledges) == 0 ? nil : PSN(record.load(fromByteOffset: 12, as: UInt32.self))
        return PacketRun(
            records: record, first: word,
            header: word & ~(RunRecord.countMask | RunRecord.continues | UInt64(PacketRing.acknowledges)),
            lines: (PacketRing.byteCount - offset) / PacketRing.line)
    }

    /// Releases the packets of a run.
    @inline(__always)
    mutating func releaseRun(_ count: Int) {
        head &+= UInt64(count &* PacketRing.line)
        if head &- published >= UInt64(PacketRing.byteCount / 8) { publish() }
    }

    /// Releases the packet that `next` returned, which has `byteCount` bytes.
    @inline(__always)
    mutating func release(byteCount: Int) {
        assert(byteCount <= Engine.packetRoom, "the length of the packet that next returned")
        head &+= UInt64(PacketRing.roundUp(PacketRing.packetOffset + byteCount))
        // The writer reads the position only when it finds the ring full, so an update for each eighth is enough.
        if head &- published >= UInt64(PacketRing.byteCount / 8) { publish() }
    }

    /// Publishes the reader's position to the writer.
    @inline(__always)
    mutating func publish() {
        if published == head { return }
        published = head
        PacketRing.position(header).pointee.store(head, ordering: .releasing)
    }
}

@inline(__always)
private func readPair(_ header: UnsafeMutableRawPointer, _ index: Int) -> (GID, GID) {
    let place = header + PacketRing.pairOffset + index * PacketRing.pairByteCount
    return (place.load(as: GID.self), place.load(fromByteOffset: 16, as: GID.self))
}
