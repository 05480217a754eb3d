/// Base transport header (IBTA volume 1, 9.2), at the start of every packet.
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
    /// Length on the wire: 12 bytes.
    @inlinable public static var byteCount: Int { 12 }
    /// The BTH.
    @inlinable public static var part: PacketPart { .bth }

    /// What the packet is, and so which headers follow.
    public var opcode: Opcode
    /// SE: the receiver's completion is to raise an event.
    public var solicited: Bool
    /// M: the path has migrated.
    public var migrated: Bool
    /// Bytes of zeros between payload and ICRC, 0 to 3. `PacketHeaders.emit` works it out by itself.
    public var padCount: UInt8
    /// TVer, 0 to 15; only 0 is defined.
    public var transportVersion: UInt8
    /// P_Key; 0xFFFF is the default partition, full member.
    public var partitionKey: UInt16
    /// FECN: the packet met congestion.
    public var fecn: Bool
    /// BECN: a packet the other way met congestion.
    public var becn: Bool
    /// Destination queue pair number, 24 bits; more are dropped.
    public var destinationQP: UInt32
    /// A: the responder is asked for an acknowledgement.
    public var acknowledgeRequest: Bool
    /// Packet sequence number.
    public var psn: PSN

    /// A BTH whose rarer fields have their usual values.
    @inlinable
    public init(
        opcode: Opcode, destinationQP: UInt32, psn: PSN, partitionKey: UInt16 = 0xFFFF,
        acknowledgeRequest: Bool = false, solicited: Bool = false
    ) {
        self.opcode = opcode
        self.solicited = solicited
        migrated = false
        padCount = 0
        transportVersion = 0
        self.partitionKey = partitionKey
        fecn = false
        becn = false
        self.destinationQP = destinationQP
        self.acknowledgeRequest = acknowledgeRequest
        self.psn = psn
    }

    /// Reads 12 bytes, unchecked.
    @inlinable @inline(__always)
    public init(at bytes: UnsafeRawPointer) {
        let word0 = bytes.big(0, as: UInt32.self)
        let word1 = bytes.big(4, as: UInt32.self)
        let word2 = bytes.big(8, as: UInt32.self)
        opcode = Opcode(rawValue: UInt8(truncatingIfNeeded: word0 >> 24))
        solicited = word0 & 1 << 23 != 0
        migrated = word0 & 1 << 22 != 0
        padCount = UInt8(truncatingIfNeeded: word0 >> 20 & 3)
        transportVersion = UInt8(truncatingIfNeeded: word0 >> 16 & 15)
        partitionKey = UInt16(truncatingIfNeeded: word0)
        fecn = word1 & 1 << 31 != 0
        becn = word1 & 1 << 30 != 0
        destinationQP = low24(word1)
        acknowledgeRequest = word2 & 1 << 31 != 0
        psn = PSN(word2)
    }

    /// Writes 12 bytes, unchecked.
    @inlinable @inline(__always)
    public func emit(at bytes: UnsafeMutableRawPointer) {
        let flags = (solicited ? 1 << 7 : 0) | (migrated ? 1 << 6 : 0) | (padCount & 3) << 4 | transportVersion & 15
        bytes.setBig(0, UInt32(opcode.rawValue) << 24 | UInt32(flags) << 16 | UInt32(partitionKey))
        bytes.setBig(4, (fecn ? 1 << 31 : 0) | (becn ? 1 << 30 : 0) | low24(destinationQP))
        bytes.setBig(8, (acknowledgeRequest ? 1 << 31 : 0) | psn.rawValue)
    }
}
