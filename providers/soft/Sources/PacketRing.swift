import CLinux
import RoCETransport
import RoCEWire
import Synchronization

/// A queue of packets in memory that two processes share: one writes, one reads, neither trusts the other.
///
/// The data is a ring of 64-byte lines. A record begins on a line and lies in one piece:
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | bits 15:0 bytes of the packet; bit 30: go on at the start of the ring; bit 31: there is a record |
/// | 4    | index in the ring's table of address pairs |
/// | 5    | traffic class |
/// | 6    | hop limit |
/// | 7    | zero |
/// | 8-11 | flow label |
/// | 12   | the packet, from the BTH to the end of the ICRC, which is not filled in |
///
/// The first word is written last, and before it a zero to the line behind the record. So a zero is where the reader
/// stops, the reader needs no index of the writer's, and a writer that dies leaves nothing half done: its successor
/// follows the records up to the zero and goes on there.
enum PacketRing {
    /// Bytes of data, a power of two.
    static let byteCount = 512 << 10
    static let line = 64
    /// Before the data: the reader's position, and the table of address pairs.
    static let headerByteCount = 4096
    static let strideByteCount = headerByteCount + byteCount

    /// Offset of the reader's position in the header, and of the table.
    static let positionOffset = 0
    static let pairOffset = 1024
    static let pairCount = 64
    static let pairByteCount = 32

    static let packetOffset = 12
    static let isRecord: UInt32 = 1 << 31
    static let isWrap: UInt32 = 1 << 30
    static let countMask: UInt32 = 0xFFFF
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

    /// Bytes that a record with this first word takes, or nil when no such record can lie at this offset.
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

/// What travels with a packet: what IP would have carried.
struct PacketEnvelope {
    var source: GID
    var destination: GID
    var trafficClass: UInt8
    var hopLimit: UInt8
    var flowLabel: UInt32
}

/// The writing end.
struct PacketRingWriter {
    private let header: UnsafeMutableRawPointer
    private let data: UnsafeMutableRawPointer
    private var tail: UInt64
    /// The reader's position when last looked at.
    private var seen: UInt64
    private var pairs = 0
    /// The pair of the packet before.
    private var lastSource = GID()
    private var lastDestination = GID()
    private var lastPair: UInt8 = 0

    /// Goes on where the writer before stopped. Nil when the ring holds what no writer of ours leaves behind.
    init?(_ ring: UnsafeMutableRawPointer) {
        header = ring
        data = ring + PacketRing.headerByteCount
        seen = PacketRing.position(ring).pointee.load(ordering: .acquiring)
        tail = seen
        guard seen % UInt64(PacketRing.line) == 0 else { return nil }
        while true {
            let offset = PacketRing.offset(tail)
            let word = PacketRing.word(data + offset).pointee.load(ordering: .acquiring)
            if word == 0 { break }
            guard let extent = PacketRing.extent(word, at: offset) else { return nil }
            tail &+= UInt64(extent)
            guard tail &- seen < UInt64(PacketRing.byteCount) else { return nil }
        }
    }

    /// Where the next packet is to be written: room for `Engine.packetRoom` bytes, or nil when the ring is full.
    @inline(__always)
    mutating func reserve() -> UnsafeMutableRawPointer? {
        let offset = PacketRing.offset(tail)
        if offset + PacketRing.maximumRecord > PacketRing.byteCount {
            guard hasRoom(PacketRing.byteCount - offset + PacketRing.line) else { return nil }
            publish(PacketRing.isRecord | PacketRing.isWrap, extent: PacketRing.byteCount - offset)
        }
        guard hasRoom(PacketRing.maximumRecord + PacketRing.line) else { return nil }
        return data + PacketRing.offset(tail) + PacketRing.packetOffset
    }

    /// Shows the reader the packet that was written where `reserve` said. False when its addresses find no place in
    /// the table: then it is not sent.
    @inline(__always)
    mutating func commit(byteCount: Int, _ envelope: borrowing PacketEnvelope) -> Bool {
        guard let pair = pair(envelope.source, envelope.destination) else { return false }
        let record = data + PacketRing.offset(tail)
        record.storeBytes(of: pair, toByteOffset: 4, as: UInt8.self)
        record.storeBytes(of: envelope.trafficClass, toByteOffset: 5, as: UInt8.self)
        record.storeBytes(of: envelope.hopLimit, toByteOffset: 6, as: UInt8.self)
        record.storeBytes(of: 0, toByteOffset: 7, as: UInt8.self)
        record.storeBytes(of: envelope.flowLabel, toByteOffset: 8, as: UInt32.self)
        publish(
            PacketRing.isRecord | UInt32(truncatingIfNeeded: byteCount),
            extent: PacketRing.roundUp(PacketRing.packetOffset + byteCount))
        return true
    }

    /// Whether everything written has been read.
    var isEmpty: Bool { PacketRing.position(header).pointee.load(ordering: .acquiring) == tail }

    @inline(__always)
    private mutating func publish(_ word: UInt32, extent: Int) {
        let next = tail &+ UInt64(extent)
        PacketRing.word(data + PacketRing.offset(next)).pointee.store(0, ordering: .relaxed)
        PacketRing.word(data + PacketRing.offset(tail)).pointee.store(word, ordering: .releasing)
        tail = next
    }

    @inline(__always)
    private mutating func hasRoom(_ count: Int) -> Bool {
        let limit = UInt64(PacketRing.byteCount - count)
        if tail &- seen <= limit { return true }
        let position = PacketRing.position(header).pointee.load(ordering: .acquiring)
        // A position ahead of ours, or one that goes back, is not the reader's word: then there is no room for ever.
        if tail &- position > UInt64(PacketRing.byteCount) { return false }
        seen = position
        return tail &- seen <= limit
    }

    @inline(__always)
    private mutating func pair(_ source: GID, _ destination: GID) -> UInt8? {
        if pairs > 0 && source == lastSource && destination == lastDestination { return lastPair }
        return findPair(source, destination)
    }

    /// Looks a pair up in the table, or adds it. A full table is begun anew, once the reader has read all that refers
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

/// The reading end.
struct PacketRingReader {
    private let header: UnsafeMutableRawPointer
    private let data: UnsafeMutableRawPointer
    private var head: UInt64
    private var published: UInt64
    /// The ring holds what no writer of ours writes: it is read no more.
    private(set) var isBroken = false

    init(_ ring: UnsafeMutableRawPointer) {
        header = ring
        data = ring + PacketRing.headerByteCount
        head = PacketRing.position(ring).pointee.load(ordering: .relaxed)
        published = head
    }

    /// Whether a packet waits.
    @inline(__always)
    var hasPacket: Bool {
        !isBroken && PacketRing.word(data + PacketRing.offset(head)).pointee.load(ordering: .acquiring) != 0
    }

    /// The next packet in place, valid until `release`; nil when there is none.
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
            if word == 0 { return nil }
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
        return UnsafeRawBufferPointer(
            start: record + PacketRing.packetOffset, count: Int(word & PacketRing.countMask))
    }

    /// Gives up a packet that `next` showed, of this many bytes.
    @inline(__always)
    mutating func release(byteCount: Int) {
        head &+= UInt64(PacketRing.roundUp(PacketRing.packetOffset + byteCount))
        // The writer looks only when it finds the ring full, so telling it now and then is enough.
        if head &- published >= UInt64(PacketRing.byteCount / 8) { publish() }
    }

    /// Tells the writer how far the reader has come.
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
