/// The error of a message that does not follow the format.
public struct MalformedMessage: Error, Sendable, Hashable, CustomStringConvertible {
    /// Offset of the fault in the datagram, in bytes.
    public let offset: Int
    /// The fault.
    public let message: String

    /// The offset and the fault: `byte N of the kernel's message: FAULT`.
    public var description: String { "byte \(offset) of the kernel's message: \(message)" }
}

/// The attributes in a message or within an attribute (`struct nlattr` of `<linux/netlink.h>`), in the byte order of
/// the machine:
///
/// | bytes | contents |
/// |---|---|
/// | 0..<2 | length of header and value |
/// | 2..<4 | type: 14 bits; bit 15: nested (NLA_F_NESTED), bit 14: network byte order (NLA_F_NET_BYTEORDER) |
/// | 4... | value, then up to 3 bytes of padding to a multiple of 4 |
///
/// Attributes of unknown types are ignored. This does not use libnl, so that every access is checked against the bounds
/// of the array, and tests need no netlink socket.
struct Attributes {
    private var entries: [(type: Int, value: ArraySlice<UInt8>)] = []

    init(_ bytes: ArraySlice<UInt8>) throws(MalformedMessage) {
        var rest = bytes
        while !rest.isEmpty {
            guard rest.count >= 4 else {
                throw MalformedMessage(offset: rest.startIndex, message: "\(rest.count) bytes are no attribute")
            }
            let length = Int(machineNumber(rest.prefix(2)))
            guard (4...rest.count).contains(length) else {
                throw MalformedMessage(
                    offset: rest.startIndex, message: "an attribute of \(length) bytes, of \(rest.count) that are left"
                )
            }
            entries.append((Int(machineNumber(rest.dropFirst(2).prefix(2)) & 0x3fff), rest.prefix(length).dropFirst(4)))
            rest = rest.dropFirst((length + 3) & ~3)
        }
    }

    /// The value of the first attribute of this type.
    private subscript(type: RDMAAttribute) -> ArraySlice<UInt8>? {
        entries.first { $0.type == type.rawValue }?.value
    }

    /// The value of a numeric attribute of 1, 2, 4 or 8 bytes; nil if the attribute is absent.
    func number<Value: FixedWidthInteger>(_ type: RDMAAttribute, as: Value.Type = Value.self)
        throws(MalformedMessage) -> Value?
    {
        guard let bytes = self[type] else { return nil }
        guard [1, 2, 4, 8].contains(bytes.count), let value = Value(exactly: machineNumber(bytes)) else {
            throw MalformedMessage(
                offset: bytes.startIndex,
                message: "attribute \(type.rawValue) of \(bytes.count) bytes is no number of \(Value.bitWidth) bits")
        }
        return value
    }

    /// The value of a mandatory numeric attribute. `start` is the offset that the error reports if it is absent.
    func required<Value: FixedWidthInteger>(_ type: RDMAAttribute, _ start: Int) throws(MalformedMessage) -> Value {
        guard let value: Value = try number(type) else {
            throw MalformedMessage(offset: start, message: "attribute \(type.rawValue) is missing")
        }
        return value
    }

    /// The value of a text attribute, up to its terminating zero; invalid UTF-8 is replaced.
    func text(_ type: RDMAAttribute) -> String? {
        self[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The bytes of an attribute.
    func bytes(_ type: RDMAAttribute) -> ArraySlice<UInt8>? { self[type] }

    /// The attributes nested in each attribute of type `entry` in the attribute of type `table`; empty if there is no
    /// such table.
    func entries(_ table: RDMAAttribute, _ entry: RDMAAttribute) throws(MalformedMessage) -> [Attributes] {
        guard let bytes = self[table] else { return [] }
        var nested: [Attributes] = []
        for (type, value) in try Attributes(bytes).entries where type == entry.rawValue {
            nested.append(try Attributes(value))
        }
        return nested
    }
}

/// A number of at most eight bytes in host byte order.
func machineNumber(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    #if _endian(little)
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    #else
        bytes.reduce(0) { $0 << 8 | UInt64($1) }
    #endif
}
