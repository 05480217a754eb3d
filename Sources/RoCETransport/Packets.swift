import RoCEWire

/// The addresses and the IP header of a packet that is passed to `Engine.receive`, in place of a GRH (`struct
/// ibv_grh`).
@frozen
public struct PacketSource {
    /// The SGID of the packet: the source address of IP (RoCEv2 annex A17.4.1.1).
    public var source: GID
    /// The DGID of the packet: the destination address of IP (RoCEv2 annex A17.4.1.1).
    public var destination: GID
    /// The header for the GRH area of a datagram (`IBV_WC_GRH`): the 40-byte IPv6 header, or the 20-byte IPv4 header,
    /// which is placed after 20 zero bytes. With another length the area is 40 zero bytes. It is read during the call
    /// only.
    public var header: UnsafeRawBufferPointer

    /// Creates the source of a packet with SGID, DGID and IP header.
    @inlinable
    public init(source: GID, destination: GID, header: UnsafeRawBufferPointer) {
        self.source = source
        self.destination = destination
        self.header = header
    }
}

/// When `Engine.transmit` writes acknowledgements.
public enum AcknowledgementOrder {
    /// Before all other packets.
    case first
    /// After the requests, of which those to an engine of this host carry them (`OutgoingPacket.acknowledged`). NAKs, and the
    /// responses of atomics, come before all other packets.
    case last
    /// Not, except those in requests: they wait for a later call. NAKs, and the responses of atomics, are written.
    case held
    /// Nothing else is written, and no doorbell is read.
    case only
}

/// A packet that `Engine.transmit` wrote (`struct rxe_pkt_info` of the kernel's rxe).
@frozen
public struct OutgoingPacket {
    /// The bytes from the BTH to the end of the ICRC. The caller computes the ICRC, which is the last four bytes.
    public var byteCount: Int
    /// The path of the packet (`ibv_ah_attr`).
    public var path: Path
    /// The QPN of the sending queue pair (`ibv_qp.qp_num`).
    public var sourceQPN: UInt32
    /// The QPN of the receiving queue pair (BTH.DestQP).
    public var destinationQPN: UInt32
    /// Whether it is a UD packet, which has the path of its work request and may have any UDP source port (RoCEv2 annex
    /// A17.9.4).
    public var isDatagram: Bool
    /// Whether a loss of the packet only costs time: a request, READ response or ACK on RC that is sent for the first
    /// time, of a queue pair with `ibv_qp_attr.timeout` and `retry_cnt` other than 0, as its peer is taken to have too. A
    /// retransmitted packet is not expendable.
    public var isExpendable: Bool
    /// Whether the packet is a reference to the data of a SEND, for `Engine.receiveReference` of the receiver: only an engine
    /// of this host that has the table of this one understands it. To another one it must not be sent.
    public var isReference = false
    /// The PSN that the packet acknowledges besides, for `Engine.receive` of a receiver in shared memory, as if an
    /// ACK packet of its sending queue pair came before it. A packet that is sent in another way is passed to
    /// `Engine.separateAcknowledgement` first, as is one that is dropped.
    public var acknowledged: PSN?

    /// Creates the description of a packet.
    @inline(__always)
    public init(
        byteCount: Int, path: Path, sourceQPN: UInt32, destinationQPN: UInt32, isDatagram: Bool = false,
        isExpendable: Bool = false, acknowledged: PSN? = nil
    ) {
        self.byteCount = byteCount
        self.path = path
        self.sourceQPN = sourceQPN
        self.destinationQPN = destinationQPN
        self.isDatagram = isDatagram
        self.isExpendable = isExpendable
        self.acknowledged = acknowledged
    }

    /// Whether only an engine of this host understands this packet: a reference, and the NAK that refuses one.
    public func staysOnHost(_ bytes: UnsafeRawPointer) -> Bool {
        isReference
            || Opcode(rawValue: bytes.load(as: UInt8.self)) == .rcAcknowledge
                && AETH(at: bytes + BTH.byteCount).syndrome == .nak(.needsPackets)
    }
}
