/// A part of a RoCEv2 packet, for messages.
@frozen
public enum PacketPart: UInt8, Hashable, Sendable {
    /// IPv4 header.
    case ipv4
    /// IPv6 header.
    case ipv6
    /// UDP header.
    case udp
    /// Base transport header.
    case bth
    /// Datagram extended transport header.
    case deth
    /// FLUSH extended transport header.
    case feth
    /// RDMA extended transport header.
    case reth
    /// Atomic extended transport header.
    case atomicETH
    /// ACK extended transport header.
    case aeth
    /// Atomic ACK extended transport header.
    case atomicAckETH
    /// Immediate data.
    case immDt
    /// Invalidate extended transport header.
    case ieth
    /// The reserved bytes of a congestion notification packet.
    case congestionReserved
    /// The invariant CRC behind the packet.
    case icrc

    /// The name that specifications use.
    public var name: String {
        switch self {
        case .ipv4: "IPv4 header"
        case .ipv6: "IPv6 header"
        case .udp: "UDP header"
        case .bth: "BTH"
        case .deth: "DETH"
        case .feth: "FETH"
        case .reth: "RETH"
        case .atomicETH: "AtomicETH"
        case .aeth: "AETH"
        case .atomicAckETH: "AtomicAckETH"
        case .immDt: "ImmDt"
        case .ieth: "IETH"
        case .congestionReserved: "reserved bytes of the CNP"
        case .icrc: "ICRC"
        }
    }
}

/// What is wrong with the bytes of a packet, or with the room for one. All counts are bytes.
@frozen
public enum PacketError: Error, Hashable, Sendable {
    /// The bytes end inside this part. Both counts are from the start of the bytes that were to be parsed:
    /// `needed` up to the end of the part.
    case truncated(PacketPart, needed: Int, available: Int)
    /// The buffer that was to be written is too short.
    case noRoom(needed: Int, available: Int)
    /// BTH.TVer is not 0, the only version there is.
    case unsupportedTransportVersion(UInt8)
    /// The opcode is reserved, or belongs to a transport service that this package does not speak.
    case unknownOpcode(Opcode)
    /// BTH.Pad counts more bytes than there are between the headers and the ICRC.
    case padExceedsPayload(pad: Int, available: Int)
    /// Payload and pad together are not a multiple of four bytes, so BTH.Pad is wrong or bytes are missing.
    case unalignedPayload(Int)
    /// The version field of the IP header is another one than the header that was asked for has.
    case ipVersion(UInt8)
    /// The IPv4 header carries options or is shorter than 20 bytes: its length field, in bytes.
    case ipHeaderLength(Int)
    /// The UDP length field counts less than the header's own 8 bytes.
    case udpLength(Int)
}

extension PacketError: CustomStringConvertible {
    /// A sentence that names what is wrong and where.
    public var description: String {
        switch self {
        case .truncated(let part, let needed, let available):
            "the packet ends inside the \(part.name): \(available) bytes, where \(needed) are needed"
        case .noRoom(let needed, let available):
            "the buffer of \(available) bytes is too short for the \(needed) to be written"
        case .unsupportedTransportVersion(let version):
            "transport version \(version) in the BTH; only 0 is defined"
        case .unknownOpcode(let opcode):
            "opcode \(opcode.rawValue) is reserved or belongs to a service other than RC, UC and UD"
        case .padExceedsPayload(let pad, let available):
            "the BTH counts \(pad) bytes of pad, but there are \(available) between headers and ICRC"
        case .unalignedPayload(let count):
            "payload and pad are \(count) bytes together, which is not a multiple of 4"
        case .ipVersion(let version):
            "IP version \(version) where the other was expected"
        case .ipHeaderLength(let count):
            "an IPv4 header of \(count) bytes; RoCEv2 packets have 20, without options"
        case .udpLength(let length):
            "the UDP length field says \(length), less than the 8 bytes of the header itself"
        }
    }
}
