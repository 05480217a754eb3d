import RoCETransport
import RoCEWire

@testable import SoftProvider

/// Passes the fuzzer's input to the code of soft that reads what another process of the host has written: a message on
/// the connection, and a packet ring, whose reader and writer run by turns with changes by the other process.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSharedMemory(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = UnsafeRawBufferPointer(start: start, count: count)
    readMessage(input)
    var world = RingWorld()
    world.run(input)
    return 0
}

/// In memory of exactly its length, so that the sanitizer notices a byte that is read beyond it.
private func readMessage(_ input: UnsafeRawBufferPointer) {
    let message = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count, alignment: 8)
    defer { message.deallocate() }
    message.copyMemory(from: input)
    guard LocalMessage.kind(of: UnsafeRawBufferPointer(message)) == .packet else { return }
    let (packet, envelope) = LocalMessage.packet(in: UnsafeRawBufferPointer(message))
    if packet.count > Engine.packetRoom { fatalError("a packet of \(packet.count) bytes") }
    if envelope.flowLabel > 0xF_FFFF { fatalError("a flow label of more than 20 bits") }
    if packet.reduce(0, { $0 ^ Int($1) }) > 255 { fatalError("not a byte") }
}

/// The memory of the ring, of exactly its size; the sanitizer would keep that of each input for a while.
private nonisolated(unsafe) let ring = UnsafeMutableRawPointer.allocate(
    byteCount: PacketRing.strideByteCount, alignment: 4096)

/// A ring that a reader and a writer share with the fuzzer.
private struct RingWorld {
    private var reader: PacketRingReader
    private var writer: PacketRingWriter

    init() {
        ring.initializeMemory(as: UInt8.self, repeating: 0, count: PacketRing.strideByteCount)
        reader = PacketRingReader(ring)
        writer = PacketRingWriter(ring)
    }

    /// Each 8 bytes of the input are a step: what to do, where, and a value.
    mutating func run(_ input: UnsafeRawBufferPointer) {
        var offset = 0
        while offset + 8 <= input.count {
            step(input.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
    }

    private mutating func step(_ bits: UInt64) {
        let value = UInt32(truncatingIfNeeded: bits >> 32)
        let place = Int((bits >> 8) & 0xFF_FFFF)
        switch bits & 7 {
        case 0, 1: read(Int(place & 0xFF))
        case 2, 3: write(byteCount: 16 + place % (Engine.packetRoom - 15), GID(ipv4: value))
        case 4:  // The first word of a record near the place where the reader or the writer is.
            let line = place % (PacketRing.byteCount / PacketRing.line)
            ring.storeBytes(
                of: value, toByteOffset: PacketRing.headerByteCount + line * PacketRing.line, as: UInt32.self)
        case 5:
            ring.storeBytes(
                of: UInt64(value) << (bits >> 3 & 31), toByteOffset: PacketRing.positionOffset, as: UInt64.self)
        case 6: ring.storeBytes(of: value, toByteOffset: place % (PacketRing.headerByteCount / 4) * 4, as: UInt32.self)
        default: ring.storeBytes(of: value, toByteOffset: place % (PacketRing.strideByteCount / 4) * 4, as: UInt32.self)
        }
    }

    private mutating func read(_ most: Int) {
        var envelope = PacketEnvelope(source: GID(), destination: GID(), trafficClass: 0, hopLimit: 0, flowLabel: 0)
        for step in 0..<most {
            if let run = reader.run(&envelope) {
                check(run.records, run.lines * PacketRing.line, longest: PacketRing.byteCount)
                if run.first & RunRecord.countMask > PacketRing.firstLine { fatalError("a packet longer than a line") }
                // As the device does: it releases the records that the engine took, if it took any.
                if step & 1 != 0 {
                    reader.releaseRun(min(run.lines, 1 + step & 7))
                    continue
                }
            }
            guard let packet = reader.next(&envelope) else { break }
            check(packet.baseAddress!, packet.count)
            // As the device does: it releases the length that the reader returned, whatever the ring says now.
            reader.release(byteCount: packet.count)
        }
        reader.publish()
    }

    private mutating func write(byteCount: Int, _ source: GID) {
        if byteCount & 64 != 0 { return writeRun(1 + byteCount & 7, source) }
        withUnsafeTemporaryAllocation(byteCount: Engine.packetRoom, alignment: 8) { packet in
            packet.initializeMemory(as: UInt8.self, repeating: 0x5A)
            _ = writer.write(
                packet.baseAddress!, byteCount: byteCount,
                PacketEnvelope(
                    source: source, destination: source, trafficClass: 0, hopLimit: 0, flowLabel: 0,
                    isReference: byteCount & 1 != 0, acknowledged: byteCount & 2 != 0 ? PSN(1) : nil))
        }
    }

    private mutating func writeRun(_ count: Int, _ source: GID) {
        let target = RunDestination(path: Path(source: source, destination: source), queuePair: 0, acknowledged: nil)
        guard let (records, _, header) = writer.beginRun(target) else { return }
        check(records, count * PacketRing.line)
        for number in 0..<count {
            let record = records + number * PacketRing.line
            record.storeBytes(of: Opcode.rcSendOnly.rawValue, toByteOffset: PacketRing.packetOffset, as: UInt8.self)
            record.storeBytes(of: header.0 | RunRecord.continues | 24, as: UInt64.self)
        }
        writer.endRun(count)
    }

    /// Fails when the bytes are not all in the data of the ring.
    private func check(_ start: UnsafeRawPointer, _ count: Int, longest: Int = Engine.packetRoom) {
        let offset = start - UnsafeRawPointer(ring)
        guard offset >= PacketRing.headerByteCount, offset + count <= PacketRing.strideByteCount,
            count <= longest
        else { fatalError("\(count) bytes at offset \(offset) of the ring") }
    }
}
