/// The part of the pcap format that tests need: little-endian, microseconds.
public enum PCAP {
    public static func packets(_ file: [UInt8]) -> [[UInt8]] {
        var packets: [[UInt8]] = []
        var offset = 24
        while offset + 16 <= file.count {
            let count = file.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)) }
            packets.append(Array(file[offset + 16..<offset + 16 + count]))
            offset += 16 + count
        }
        return packets
    }

    /// A file of IP packets (LINKTYPE_RAW, 101), one millisecond apart.
    public static func file(_ packets: [[UInt8]]) -> [UInt8] {
        func words(_ values: UInt32...) -> [UInt8] {
            values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        }
        var file = words(0xA1B2_C3D4, 4 << 16 | 2, 0, 0, 0x10000, 101)
        for (index, packet) in packets.enumerated() {
            let (seconds, milliseconds) = UInt32(index).quotientAndRemainder(dividingBy: 1000)
            file += words(1 + seconds, 1000 * milliseconds, UInt32(packet.count), UInt32(packet.count)) + packet
        }
        return file
    }
}
