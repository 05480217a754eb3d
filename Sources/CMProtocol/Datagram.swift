/// A GID as 16 bytes in network order, in two halves (IBTA volume 1, 4.1.1). An IPv4 address is `::ffff:a.b.c.d`.
package struct PortGID: Hashable, Sendable {
    /// Bytes 0 to 7.
    package var high: UInt64
    /// Bytes 8 to 15.
    package var low: UInt64

    /// A GID of two halves.
    package init(high: UInt64 = 0, low: UInt64 = 0) {
        self.high = high
        self.low = low
    }

    /// The zero GID, which is no address.
    package static var zero: PortGID { PortGID() }
    /// Whether it is an IPv4 address.
    package var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }
    /// Whether it is in 127.0.0.0/8.
    package var isLoopbackIPv4: Bool { isIPv4 && low >> 24 & 0xFF == 127 }
}

/// The 256 bytes of a management datagram (MAD; IBTA volume 1, 13.4.2), which a message of the connection manager fills.
/// Numbers are in network order. Bits of a byte are counted from the left, as the tables of IBTA do: `bits(at: 43, 0, 5)`
/// are the five high bits of byte 43.
struct Datagram: Equatable {
    /// The bytes of a MAD.
    static let byteCount = 256
    /// The bytes of the header that all MADs have.
    static let headerByteCount = 24

    var bytes: [UInt8]

    init() { bytes = Array(repeating: 0, count: Self.byteCount) }

    /// Copies the bytes; nil unless there are 256.
    init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = Array(bytes)
    }

    /// A number of `byteCount` bytes at most 8.
    func number(at offset: Int, _ byteCount: Int) -> UInt64 {
        bytes[offset..<offset + byteCount].reduce(0) { $0 << 8 | UInt64($1) }
    }

    mutating func set(_ value: UInt64, at offset: Int, _ byteCount: Int) {
        for index in 0..<byteCount {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (byteCount - 1 - index)))
        }
    }

    /// `count` bits of a byte, from bit `first`, where bit 0 is the highest.
    func bits(at offset: Int, _ first: Int, _ count: Int) -> UInt8 {
        bytes[offset] >> UInt8(8 - first - count) & (1 << UInt8(count) &- 1)
    }

    mutating func set(_ value: UInt8, at offset: Int, _ first: Int, bits count: Int) {
        let shift = UInt8(8 - first - count)
        let mask: UInt8 = 1 << UInt8(count) &- 1
        bytes[offset] = bytes[offset] & ~(mask << shift) | (value & mask) << shift
    }

    func gid(at offset: Int) -> PortGID { PortGID(high: number(at: offset, 8), low: number(at: offset + 8, 8)) }

    mutating func set(_ gid: PortGID, at offset: Int) {
        set(gid.high, at: offset, 8)
        set(gid.low, at: offset + 8, 8)
    }

    func octets(at offset: Int, _ byteCount: Int) -> [UInt8] { Array(bytes[offset..<offset + byteCount]) }

    /// Writes at most `byteCount` bytes; the rest stays zero.
    mutating func set(_ data: [UInt8], at offset: Int, _ byteCount: Int) {
        for (index, byte) in data.prefix(byteCount).enumerated() { bytes[offset + index] = byte }
    }
}

/// Why bytes are not a message of the connection manager.
package enum CMMessageError: Error, Hashable, Sendable {
    /// A MAD has 256 bytes.
    case byteCount(Int)
    /// Base version or management class are not those of communication management (1, 0x07).
    case notCommunicationManagement(baseVersion: UInt8, managementClass: UInt8)
    /// The class version is not 2.
    case classVersion(UInt8)
    /// The method is not `Send`, or the status not 0.
    case method(UInt8, status: UInt16)
    /// An attribute that this protocol does not have.
    case unknownAttribute(UInt16)
}

extension CMMessageError: CustomStringConvertible {
    /// The message without context, such as `a MAD has 256 bytes, not 12`.
    package var description: String {
        switch self {
        case .byteCount(let count): "a MAD has 256 bytes, not \(count)"
        case .notCommunicationManagement(let version, let managementClass):
            "base version \(version) and class \(managementClass) are not those of communication management, 1 and 7"
        case .classVersion(let version): "class version \(version) of communication management; version 2 is known"
        case .method(let method, let status): "method \(method) and status \(status) instead of Send (3) and 0"
        case .unknownAttribute(let attribute): "communication management has no attribute \(attribute)"
        }
    }
}
