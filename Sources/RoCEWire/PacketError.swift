/// A part of a RoCEv2 packet, which errors name (IBTA volume 1, 5.2; RoCEv2 annex A17.3).
@frozen
public enum PacketPart: UInt8, Hashable, Sendable {
    /// The IPv4 header (RFC 791).
    case ipv4
    /// The IPv6 header (RFC 8200).
    case ipv6
    /// The UDP header (RFC 768).
    case udp
    /// BTH, the base transport header (IBTA volume 1, 9.2).
    case bth
    /// XRCETH, the extended reliable connection extended transport header (IBTA volume 1, annex A14).
    case xrceth
    /// DETH, the datagram extended transport header (IBTA volume 1, 9.3.2).
    case deth
    /// FETH, the FLUSH extended transport header (IBTA volume 1 release 1.5, annex A19).
    case feth
    /// RETH, the RDMA extended transport header (IBTA volume 1, 9.3.3).
    case reth
    /// AtomicETH, the atomic extended transport header (IBTA volume 1, 9.3.4).
    case atomicETH
    /// AETH, the ACK extended transport header (IBTA volume 1, 9.3.5).
    case aeth
    /// AtomicAckETH, the atomic ACK extended transport header (IBTA volume 1, 9.5.3).
    case atomicAckETH
    /// ImmDt, the immediate data (IBTA volume 1, 9.3.6).
    case immDt
    /// IETH, the invalidate extended transport header (IBTA volume 1, 9.3.7).
    case ieth
    /// The reserved bytes of a congestion notification packet (RoCEv2 annex A17.9.3).
    case congestionReserved
    /// ICRC, the invariant CRC at the end of the packet (IBTA volume 1, 7.8.1).
    case icrc

    /// The name in the specification, such as BTH or AETH.
    public var name: String {
        switch self {
        case .ipv4: "IPv4 header"
        case .ipv6: "IPv6 header"
        case .udp: "UDP header"
        case .bth: "BTH"
        case .xrceth: "XRCETH"
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

/// An error in the bytes of a packet (headers of IP and UDP, BTH, pad; IBTA volume 1, 9.6), or a buffer that is too
/// short for a packet. All counts are in bytes.
@frozen
public enum PacketError: Error, Hashable, Sendable {
    /// The packet ends inside this part (IBTA volume 1, 9.6). `available` is the number of bytes that were passed to
    /// the parser, `needed` the number from their start to the end of the part.
    case truncated(PacketPart, needed: Int, available: Int)
    /// The buffer is too short for the packet that is to be written to it, BTH to ICRC.
    case noRoom(needed: Int, available: Int)
    /// BTH.TVer is not 0, the only version that is defined.
    case unsupportedTransportVersion(UInt8)
    /// BTH.OpCode is reserved, or of a transport service that is not supported.
    case unknownOpcode(Opcode)
    /// BTH.PadCnt is larger than the number of bytes between the headers and the ICRC.
    case padExceedsPayload(pad: Int, available: Int)
    /// Payload and pad together are not a multiple of four bytes, so BTH.PadCnt is wrong or bytes are missing.
    case unalignedPayload(Int)
    /// The version field of the IP header is not that of the expected header (RFC 791, RFC 8200).
    case ipVersion(UInt8)
    /// The IPv4 header has options or is shorter than 20 bytes (RFC 791): its length field, in bytes.
    case ipHeaderLength(Int)
    /// The UDP length field is less than 8, the length of the header itself (RFC 768).
    case udpLength(Int)
}

extension PacketError: CustomStringConvertible {
    /// A sentence that names the error and the part of the packet, such as BTH.
    public var description: String {
        switch self {
        case .truncated(let part, let needed, let available):
            "the packet ends inside the \(part.name): \(available) bytes, where \(needed) are needed"
        case .noRoom(let needed, let available):
            "the buffer of \(available) bytes is too short for the \(needed) to be written"
        case .unsupportedTransportVersion(let version):
            "transport version \(version) in the BTH; only 0 is defined"
        case .unknownOpcode(let opcode):
            "opcode \(opcode.rawValue) is reserved or belongs to a service other than RC, UC, UD and XRC"
        case .padExceedsPayload(let pad, let available):
            "the BTH counts \(pad) bytes of pad, but there are \(available) between headers and ICRC"
        case .unalignedPayload(let count):
            "payload and pad are \(count) bytes together, which is not a multiple of 4"
        case .ipVersion(let version):
            "IP version \(version) where the other was expected"
        case .ipHeaderLength(let count):
            "an IPv4 header of \(count) bytes; RoCEv2 packets have 20, without options"
        case .udpLength(let length):
            "the UDP length field is \(length), less than the 8 bytes of the header itself"
        }
    }
}
