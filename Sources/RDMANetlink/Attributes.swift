/// A message that does not follow the format: where in it, and what is wrong.
public struct MalformedMessage: Error, Sendable, Hashable, CustomStringConvertible {
    /// Offset in bytes from the begin of the datagram.
    public let offset: Int
    /// What is wrong there.
    public let sentence: String

    /// `byte N of the kernel's message: what is wrong`.
    public var description: String { "byte \(offset) of the kernel's message: \(sentence)" }
}

/// The attributes in a message or within an attribute (`struct nlattr` of `<linux/netlink.h>`), in the byte order of
/// the machine:
///
/// | bytes | |
/// |---|---|
/// | 0..<2 | length of header and value |
/// | 2..<4 | type: 14 bits; bit 15 says nested, bit 14 network byte order |
/// | 4... | value, then up to 3 bytes so that the next attribute begins at a multiple of 4 |
///
/// Attributes of unknown types are passed over. libnl could walk through them as well; here every access is checked
/// against the bounds of the array, and nothing but bytes is needed to test it.
struct Attributes {
    private var entries: [(type: Int, value: ArraySlice<UInt8>)] = []

    init(_ bytes: ArraySlice<UInt8>) throws(MalformedMessage) {
        var rest = bytes
        while !rest.isEmpty {
            guard rest.count >= 4 else {
                throw MalformedMessage(offset: rest.startIndex, sentence: "\(rest.count) bytes are no attribute")
            }
            let length = Int(machineNumber(rest.prefix(2)))
            guard (4...rest.count).contains(length) else {
                throw MalformedMessage(
                    offset: rest.startIndex, sentence: "an attribute of \(length) bytes, of \(rest.count) that are left"
                )
            }
            entries.append((Int(machineNumber(rest.dropFirst(2).prefix(2)) & 0x3fff), rest.prefix(length).dropFirst(4)))
            rest = rest.dropFirst((length + 3) & ~3)
        }
    }

    /// The value of the first attribute of that type.
    private subscript(type: RDMAAttribute) -> ArraySlice<UInt8>? {
        entries.first { $0.type == type.rawValue }?.value
    }

    /// A number of the width that the kernel gave it: 1, 2, 4 or 8 bytes; nil where the attribute is not there.
    func number<Value: FixedWidthInteger>(_ type: RDMAAttribute, as: Value.Type = Value.self)
        throws(MalformedMessage) -> Value?
    {
        guard let bytes = self[type] else { return nil }
        guard [1, 2, 4, 8].contains(bytes.count), let value = Value(exactly: machineNumber(bytes)) else {
            throw MalformedMessage(
                offset: bytes.startIndex,
                sentence: "attribute \(type.rawValue) of \(bytes.count) bytes is no number of \(Value.bitWidth) bits")
        }
        return value
    }

    /// As `number`, for an attribute that must be there; `start` is where the message begins.
    func required<Value: FixedWidthInteger>(_ type: RDMAAttribute, _ start: Int) throws(MalformedMessage) -> Value {
        guard let value: Value = try number(type) else {
            throw MalformedMessage(offset: start, sentence: "attribute \(type.rawValue) is missing")
        }
        return value
    }

    /// A text without the zero at its end; bytes that are not UTF-8 are replaced.
    func text(_ type: RDMAAttribute) -> String? {
        self[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The bytes of an attribute.
    func bytes(_ type: RDMAAttribute) -> ArraySlice<UInt8>? { self[type] }

    /// The attributes within each attribute of type `entry` within the one of type `table`; empty where there is no
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

/// A number in the byte order of the machine, of at most eight bytes.
func machineNumber(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    #if _endian(little)
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    #else
        bytes.reduce(0) { $0 << 8 | UInt64($1) }
    #endif
}
