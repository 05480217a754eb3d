import CIBVerbs
import CProviderABI

/// A global identifier: 128 bits that identify a port (`union ibv_gid`; IBTA volume 1, 4.1.1).
///
/// On InfiniBand it is the subnet prefix and the port's GUID; on RoCE it is an IPv6 address, with an
/// IPv4 address written as `::ffff:a.b.c.d`. Its text is that of an IPv6 address (RFC 5952).
@frozen public struct GID: Hashable, Sendable {
    /// The upper 64 bits, in host byte order: on InfiniBand the subnet prefix (`global.subnet_prefix`).
    public let prefix: UInt64
    /// The lower 64 bits, in host byte order: on InfiniBand the interface identifier (`global.interface_id`).
    public let interfaceID: UInt64

    /// The GID of an empty table entry.
    public static var zero: GID { GID(prefix: 0, interfaceID: 0) }

    /// Makes a GID from its halves, both in host byte order.
    @inlinable public init(prefix: UInt64, interfaceID: UInt64) {
        self.prefix = prefix
        self.interfaceID = interfaceID
    }

    /// Makes the GID that stands for an IPv4 address, whose octets are `a.b.c.d`.
    public init(ipv4 a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        self.init(
            prefix: 0,
            interfaceID: 0xffff_0000_0000 | UInt64(a) << 24 | UInt64(b) << 16 | UInt64(c) << 8 | UInt64(d))
    }

    /// Makes a GID from 16 bytes in network order; nil for another number of bytes.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        let words = bytes.reduce(into: (UInt64(0), UInt64(0))) { words, byte in
            words = (words.0 << 8 | words.1 >> 56, words.1 << 8 | UInt64(byte))
        }
        self.init(prefix: words.0, interfaceID: words.1)
    }

    /// Makes a GID from verbs.h's form.
    package init(_ raw: ibv_gid) {
        self.init(
            prefix: UInt64(bigEndian: raw.global.subnet_prefix),
            interfaceID: UInt64(bigEndian: raw.global.interface_id))
    }

    /// The GID in verbs.h's form.
    package var raw: ibv_gid {
        var raw = ibv_gid()
        raw.global.subnet_prefix = prefix.bigEndian
        raw.global.interface_id = interfaceID.bigEndian
        return raw
    }

    /// The 16 bytes in network order.
    public var bytes: [UInt8] {
        (0..<16).map { index in
            UInt8(truncatingIfNeeded: (index < 8 ? prefix : interfaceID) >> UInt64(56 - index % 8 * 8))
        }
    }

    /// Whether all bits are zero: an empty table entry.
    public var isZero: Bool { prefix == 0 && interfaceID == 0 }
    /// Whether it stands for an IPv4 address (`::ffff:0:0/96`).
    public var isIPv4Mapped: Bool { prefix == 0 && interfaceID >> 32 == 0xffff }
    /// Whether it is only valid on its link (`fe80::/10`); also InfiniBand's default subnet prefix.
    public var isLinkLocal: Bool { prefix >> 54 == 0xfe80 >> 6 }
    /// Whether it is a multicast GID: `ff00::/8`, or on RoCE v2 the IPv4 group `::ffff:224.0.0.0/100`.
    public var isMulticast: Bool { prefix >> 56 == 0xff || isIPv4Mapped && (interfaceID >> 28) & 0xf == 0xe }
    /// Whether it is the loopback address of IPv4 (`127.0.0.0/8`) or IPv6 (`::1`).
    public var isLoopback: Bool {
        isIPv4Mapped ? (interfaceID >> 24) & 0xff == 127 : prefix == 0 && interfaceID == 1
    }
}

extension GID: LosslessStringConvertible {
    /// Reads the text of an IPv6 address, such as `fe80::1` or `::ffff:192.0.2.1`, or of an IPv4 address.
    public init?(_ text: String) {
        if let octets = GID.octets(of: text[...]) {
            self.init(ipv4: octets[0], octets[1], octets[2], octets[3])
            return
        }
        guard let groups = GID.groups(of: text[...]) else { return nil }
        let halves = [groups[0..<4], groups[4..<8]].map { $0.reduce(UInt64(0)) { $0 << 16 | UInt64($1) } }
        self.init(prefix: halves[0], interfaceID: halves[1])
    }

    /// The text of the IPv6 address, in the form of RFC 5952.
    public var description: String {
        let groups = (0..<8).map { index in
            UInt16(truncatingIfNeeded: (index < 4 ? prefix : interfaceID) >> UInt64(48 - index % 4 * 16))
        }
        if isIPv4Mapped {
            let low = UInt32(truncatingIfNeeded: interfaceID)
            return "::ffff:\(low >> 24).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)"
        }
        guard let gap = GID.longestZeroRun(groups) else { return GID.text(groups[...]) }
        return GID.text(groups[..<gap.lowerBound]) + "::" + GID.text(groups[gap.upperBound...])
    }

    private static func text(_ groups: ArraySlice<UInt16>) -> String {
        groups.map { String($0, radix: 16) }.joined(separator: ":")
    }

    /// The first of the longest runs of two or more zero groups.
    private static func longestZeroRun(_ groups: [UInt16]) -> Range<Int>? {
        var best: Range<Int>?
        var start = 0
        for index in 0...groups.count where index == groups.count || groups[index] != 0 {
            if index - start > max(best?.count ?? 0, 1) { best = start..<index }
            start = index + 1
        }
        return best
    }

    /// The four octets of a dotted IPv4 address.
    private static func octets(of text: Substring) -> [UInt8]? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        let octets = parts.compactMap { part in
            part.count <= 3 && part.utf8.allSatisfy { (48...57).contains($0) } ? UInt8(part) : nil
        }
        return octets.count == 4 ? octets : nil
    }

    /// The eight groups of an IPv6 address.
    private static func groups(of text: Substring) -> [UInt16]? {
        let halves: [Substring]
        if let gap = text.firstRange(of: "::") {
            halves = [text[..<gap.lowerBound], text[gap.upperBound...]]
        } else {
            halves = [text]
        }
        var parsed: [[UInt16]] = []
        for (index, half) in halves.enumerated() {
            guard let groups = groups(ofPart: half, mayEndInIPv4: index == halves.count - 1) else { return nil }
            parsed.append(groups)
        }
        let count = parsed.reduce(0) { $0 + $1.count }
        if parsed.count == 1 { return count == 8 ? parsed[0] : nil }
        return count < 8 ? parsed[0] + Array(repeating: 0, count: 8 - count) + parsed[1] : nil
    }

    private static func groups(ofPart part: Substring, mayEndInIPv4: Bool) -> [UInt16]? {
        if part.isEmpty { return [] }
        var groups: [UInt16] = []
        let fields = part.split(separator: ":", omittingEmptySubsequences: false)
        for (index, field) in fields.enumerated() {
            if mayEndInIPv4, index == fields.count - 1, let octets = octets(of: field) {
                groups.append(UInt16(octets[0]) << 8 | UInt16(octets[1]))
                groups.append(UInt16(octets[2]) << 8 | UInt16(octets[3]))
            } else if (1...4).contains(field.count), field.allSatisfy(\.isHexDigit),
                let group = UInt16(field, radix: 16)
            {
                groups.append(group)
            } else {
                return nil
            }
        }
        return groups
    }
}

extension GID: Codable {
    /// Reads the text of an IPv6 address.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let gid = GID(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "\"\(text)\" is not a GID")
        }
        self = gid
    }

    /// Writes the text of the IPv6 address.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
