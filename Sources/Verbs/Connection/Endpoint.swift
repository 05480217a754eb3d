/// One end of a connection, or a receiver of datagrams: the attributes that its peer needs.
///
/// Two programs exchange their endpoints by any means, such as a TCP connection, and each connects to the
/// other's. It travels as text (`description`, `init(_:)`), as bytes (`bytes`, `init(bytes:)`) or through Codable.
public struct Endpoint: Hashable, Sendable {
    /// The QPN: 24 bits (`ibv_qp.qp_num`; the peer's `ibv_qp_attr.dest_qp_num`).
    public var queuePairNumber: UInt32
    /// The PSN of the first packet that it sends: 24 bits (`ibv_qp_attr.sq_psn`; the peer's `rq_psn`). 0 for UD.
    public var packetSequenceNumber: UInt32
    /// GID of its port.
    public var gid: GID
    /// LID of its port; 0 on Ethernet.
    public var lid: UInt16
    /// MTU of its port.
    public var mtu: MTU
    /// The largest number of outstanding reads and atomics that it serves as responder (`max_dest_rd_atomic`).
    public var maxDestRdAtomic: UInt8
    /// UD: the Q_Key that datagrams to it must carry.
    public var qkey: UInt32?
    /// Memory that the peer may access, if any.
    public var memory: RemoteMemory?

    /// An endpoint with those values.
    public init(
        queuePairNumber: UInt32, packetSequenceNumber: UInt32, gid: GID, lid: UInt16, mtu: MTU,
        maxDestRdAtomic: UInt8 = 0, qkey: UInt32? = nil, memory: RemoteMemory? = nil
    ) {
        self.queuePairNumber = queuePairNumber & 0xff_ffff
        self.packetSequenceNumber = packetSequenceNumber & 0xff_ffff
        self.gid = gid
        self.lid = lid
        self.mtu = mtu
        self.maxDestRdAtomic = maxDestRdAtomic
        self.qkey = qkey
        self.memory = memory
    }
}

// The text is the version, then `name=value` fields in this order, all numbers hexadecimal. A reader rejects unknown
// fields, since an endpoint that is read in part connects to the wrong queue pair.
//
//     rdma1,qpn=11,psn=8f3a01,lid=0,mtu=5,depth=10,gid=::ffff:192.0.2.1[,qkey=…][,addr=…,rkey=…,len=…]
extension Endpoint: LosslessStringConvertible {
    private static let version = "rdma1"

    /// One line without spaces, such as `rdma1,qpn=11,psn=8f3a01,lid=0,mtu=5,depth=10,gid=::ffff:192.0.2.1`.
    public var description: String {
        var fields = [
            Endpoint.version, "qpn=" + hex(queuePairNumber), "psn=" + hex(packetSequenceNumber), "lid=" + hex(lid),
            "mtu=" + hex(mtu.rawValue), "depth=" + hex(maxDestRdAtomic), "gid=\(gid)",
        ]
        if let qkey { fields.append("qkey=" + hex(qkey)) }
        if let memory {
            fields += ["addr=" + hex(memory.address), "rkey=" + hex(memory.rkey), "len=" + hex(memory.byteCount)]
        }
        return fields.joined(separator: ",")
    }

    /// Reads what `description` writes; nil for anything else.
    public init?(_ text: String) {
        var fields = FieldReader(text)
        guard fields.next() == Endpoint.version,
            let number = fields.number("qpn", UInt32.self), number <= 0xff_ffff,
            let psn = fields.number("psn", UInt32.self), psn <= 0xff_ffff,
            let lid = fields.number("lid", UInt16.self), let mtu = fields.number("mtu", UInt32.self),
            let depth = fields.number("depth", UInt8.self), let gid = fields.value("gid").flatMap(GID.init)
        else { return nil }
        let qkey = fields.number("qkey", UInt32.self)
        var memory: RemoteMemory?
        if let address = fields.number("addr", UInt64.self) {
            guard let rkey = fields.number("rkey", UInt32.self), let count = fields.number("len", UInt64.self) else {
                return nil
            }
            memory = RemoteMemory(address: address, rkey: rkey, byteCount: count)
        }
        guard fields.isAtEnd else { return nil }
        self.init(
            queuePairNumber: number, packetSequenceNumber: psn, gid: gid, lid: lid, mtu: MTU(rawValue: mtu),
            maxDestRdAtomic: depth, qkey: qkey, memory: memory)
    }
}

private func hex(_ value: some BinaryInteger) -> String { String(value, radix: 16) }

/// Takes comma-separated fields from the front of a text.
private struct FieldReader {
    private var rest: ArraySlice<Substring>

    init(_ text: String) { rest = text.split(separator: ",", omittingEmptySubsequences: false)[...] }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func next() -> String? { rest.popFirst().map(String.init) }

    /// The value of the next field if it has that name.
    mutating func value(_ name: String) -> String? {
        guard let field = rest.first, field.hasPrefix(name + "=") else { return nil }
        rest.removeFirst()
        return String(field.dropFirst(name.count + 1))
    }

    mutating func number<Number: FixedWidthInteger>(_ name: String, _ type: Number.Type) -> Number? {
        let before = rest
        if let text = value(name), text.allSatisfy(\.isHexDigit), let number = Number(text, radix: 16) { return number }
        rest = before
        return nil
    }
}

// The bytes are, with all numbers in network order: version 1 (1), flags (1: bit 0 Q_Key, bit 1 memory), LID (2), QPN
// (4), PSN (4), MTU code (1), max_dest_rd_atomic (1), reserved (2), GID (16), Q_Key (4), memory: rkey (4), address (8),
// length (8).
extension Endpoint {
    /// Number of bytes of `bytes`.
    public static let byteCount = 56

    /// The endpoint as `byteCount` bytes.
    public var bytes: [UInt8] {
        var bytes: [UInt8] = [1, (qkey == nil ? 0 : 1) | (memory == nil ? 0 : 2)]
        bytes.append(bigEndian: lid)
        bytes.append(bigEndian: queuePairNumber)
        bytes.append(bigEndian: packetSequenceNumber)
        bytes += [UInt8(clamping: mtu.rawValue), maxDestRdAtomic, 0, 0]
        bytes += gid.bytes
        bytes.append(bigEndian: qkey ?? 0)
        bytes.append(bigEndian: memory?.rkey ?? 0)
        bytes.append(bigEndian: memory?.address ?? 0)
        bytes.append(bigEndian: memory?.byteCount ?? 0)
        return bytes
    }

    /// Reads what `bytes` writes; nil for anything else.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Endpoint.byteCount, bytes[0] == 1, bytes[1] & ~3 == 0, bytes[14] == 0, bytes[15] == 0,
            bytes[4] == 0, bytes[8] == 0, let gid = GID(bytes: bytes[16..<32])
        else { return nil }
        let memory = RemoteMemory(
            address: bytes.bigEndian(at: 40), rkey: bytes.bigEndian(at: 36), byteCount: bytes.bigEndian(at: 48))
        self.init(
            queuePairNumber: bytes.bigEndian(at: 4), packetSequenceNumber: bytes.bigEndian(at: 8), gid: gid,
            lid: bytes.bigEndian(at: 2), mtu: MTU(rawValue: UInt32(bytes[12])), maxDestRdAtomic: bytes[13],
            qkey: bytes[1] & 1 == 0 ? nil : bytes.bigEndian(at: 32), memory: bytes[1] & 2 == 0 ? nil : memory)
    }
}

extension [UInt8] {
    fileprivate mutating func append(bigEndian value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }

    fileprivate func bigEndian<Number: FixedWidthInteger>(at offset: Int) -> Number {
        self[offset..<offset + Number.bitWidth / 8].reduce(0) { $0 << 8 | Number($1) }
    }
}

extension Endpoint: Codable {
    /// Reads the text.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let endpoint = Endpoint(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "\"\(text)\" is not an endpoint")
        }
        self = endpoint
    }

    /// Writes the text.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
