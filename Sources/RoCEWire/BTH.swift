/// Base transport header (IBTA volume 1, 9.2; `struct rxe_bth` of the kernel's rxe), at the start of every packet.
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0    | 7:0  | opcode |
/// | 1    | 7    | SE, solicited event |
/// |      | 6    | M, migration state |
/// |      | 5:4  | pad count |
/// |      | 3:0  | TVer, transport version |
/// | 2-3  |      | P_Key |
/// | 4    | 7    | FECN |
/// |      | 6    | BECN |
/// |      | 5:0  | reserved |
/// | 5-7  |      | destination QP |
/// | 8    | 7    | A, acknowledge request |
/// |      | 6:0  | reserved |
/// | 9-11 |      | PSN |
@frozen
public struct BTH: WireFormat {
    /// The length of the BTH on the wire: 12 bytes.
    @inlinable public static var byteCount: Int { 12 }
    /// The name of this header in errors: BTH.
    @inlinable public static var part: PacketPart { .bth }

    /// BTH.OpCode: the operation of the packet, which determines the headers that follow.
    public var opcode: Opcode
    /// BTH.SE, solicited event: the completion at the responder raises an event (`IBV_SEND_SOLICITED`).
    public var solicited: Bool
    /// BTH.M, migration state: the path has migrated (`IBV_MIG_MIGRATED`).
    public var migrated: Bool
    /// BTH.PadCnt: the zero bytes between payload and ICRC, 0 to 3. `PacketHeaders.emit` computes it.
    public var padCount: UInt8
    /// BTH.TVer, 0 to 15; only 0 is defined.
    public var transportVersion: UInt8
    /// BTH.P_Key: the partition key (IBTA volume 1, 10.9).
    public var pkey: UInt16
    /// BTH.FECN: a switch marked the packet because of congestion (IBTA volume 1, annex A10).
    public var fecn: Bool
    /// BTH.BECN: a packet of the connection was marked on its way to the sender of this one (IBTA volume 1, annex A10).
    public var becn: Bool
    /// BTH.DestQP: the QPN of the destination, 24 bits. Higher bits are dropped.
    public var destinationQPN: UInt32
    /// BTH.A, AckReq: the responder must acknowledge the packet (IBTA volume 1, 9.7.5).
    public var acknowledgeRequest: Bool
    /// BTH.PSN: the packet sequence number.
    public var psn: PSN

    /// The P_Key of full membership in the default partition (IBTA volume 1, 10.9; `IB_DEFAULT_PKEY_FULL` of the
    /// kernel).
    @inlinable public static var defaultPKey: UInt16 { 0xFFFF }

    /// Creates a BTH. Pad count, transport version, FECN and BECN are 0.
    @inlinable
    public init(
        opcode: Opcode, destinationQPN: UInt32, psn: PSN, pkey: UInt16 = BTH.defaultPKey,
        acknowledgeRequest: Bool = false, solicited: Bool = false, migrated: Bool = false
    ) {
        self.opcode = opcode
        self.solicited = solicited
        self.migrated = migrated
        padCount = 0
        transportVersion = 0
        self.pkey = pkey
        fecn = false
        becn = false
        self.destinationQPN = destinationQPN
        self.acknowledgeRequest = acknowledgeRequest
        self.psn = psn
    }

    /// Reads the 12 bytes of a BTH in network order; the caller has checked the length.
    @inlinable @inline(__always)
    public init(at bytes: UnsafeRawPointer) {
        self.init(words: bytes.big(0, as: UInt32.self), bytes.big(4, as: UInt32.self), bytes.big(8, as: UInt32.self))
    }

    /// Creates a BTH from its three words, in the byte order of the host.
    @inlinable @inline(__always)
    public init(words word0: UInt32, _ word1: UInt32, _ word2: UInt32) {
        opcode = Opcode(rawValue: UInt8(truncatingIfNeeded: word0 >> 24))
        solicited = word0 & 1 << 23 != 0
        migrated = word0 & 1 << 22 != 0
        padCount = UInt8(truncatingIfNeeded: word0 >> 20 & 3)
        transportVersion = UInt8(truncatingIfNeeded: word0 >> 16 & 15)
        pkey = UInt16(truncatingIfNeeded: word0)
        fecn = word1 & 1 << 31 != 0
        becn = word1 & 1 << 30 != 0
        destinationQPN = low24(word1)
        acknowledgeRequest = word2 & 1 << 31 != 0
        psn = PSN(word2)
    }

    /// The three words of the BTH, in the byte order of the host.
    @inlinable @inline(__always)
    public var words: (UInt32, UInt32, UInt32) {
        let flags = (solicited ? 1 << 7 : 0) | (migrated ? 1 << 6 : 0) | (padCount & 3) << 4 | transportVersion & 15
        return (
            UInt32(opcode.rawValue) << 24 | UInt32(flags) << 16 | UInt32(pkey),
            (fecn ? 1 << 31 : 0) | (becn ? 1 << 30 : 0) | low24(destinationQPN),
            (acknowledgeRequest ? 1 << 31 : 0) | psn.rawValue
        )
    }

    /// Writes the 12 bytes of the BTH in network order; the caller has checked the length.
    @inlinable @inline(__always)
    public func emit(at bytes: UnsafeMutableRawPointer) {
        let words = words
        bytes.setBig(0, words.0)
        bytes.setBig(4, words.1)
        bytes.setBig(8, words.2)
    }
}
