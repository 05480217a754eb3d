/// Datagram extended transport header (IBTA volume 1, 9.3.1).
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | Q_Key |
/// | 4    | reserved |
/// | 5-7  | source QP |
@frozen
public struct DETH: WireFormat {
    /// Length on the wire: 8 bytes.
    @inlinable public static var byteCount: Int { 8 }
    /// The DETH.
    @inlinable public static var part: PacketPart { .deth }

    /// Q_Key of the destination queue pair.
    public var queueKey: UInt32
    /// Source queue pair number, 24 bits; more are dropped.
    public var sourceQP: UInt32

    /// A DETH of its two fields.
    @inlinable
    public init(queueKey: UInt32, sourceQP: UInt32) {
        self.queueKey = queueKey
        self.sourceQP = sourceQP
    }

    /// Reads 8 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(queueKey: bytes.big(0, as: UInt32.self), sourceQP: low24(bytes.big(4, as: UInt32.self)))
    }

    /// Writes 8 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, queueKey)
        bytes.setBig(4, low24(sourceQP))
    }
}

/// RDMA extended transport header (IBTA volume 1, 9.3.3).
///
/// | byte  | field |
/// |-------|-------|
/// | 0-7   | virtual address |
/// | 8-11  | R_Key |
/// | 12-15 | DMA length |
@frozen
public struct RETH: WireFormat {
    /// Length on the wire: 16 bytes.
    @inlinable public static var byteCount: Int { 16 }
    /// The RETH.
    @inlinable public static var part: PacketPart { .reth }

    /// Address in the responder's memory region.
    public var virtualAddress: UInt64
    /// R_Key of that region.
    public var remoteKey: UInt32
    /// Bytes of the whole message, not of the packet; of what is still wanted when a READ is repeated.
    public var dmaLength: UInt32

    /// A RETH of its three fields.
    @inlinable
    public init(virtualAddress: UInt64, remoteKey: UInt32, dmaLength: UInt32) {
        self.virtualAddress = virtualAddress
        self.remoteKey = remoteKey
        self.dmaLength = dmaLength
    }

    /// Reads 16 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            virtualAddress: bytes.big(0, as: UInt64.self), remoteKey: bytes.big(8, as: UInt32.self),
            dmaLength: bytes.big(12, as: UInt32.self))
    }

    /// Writes 16 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, virtualAddress)
        bytes.setBig(8, remoteKey)
        bytes.setBig(12, dmaLength)
    }
}

/// Atomic extended transport header (IBTA volume 1, 9.3.4).
///
/// | byte  | field |
/// |-------|-------|
/// | 0-7   | virtual address |
/// | 8-11  | R_Key |
/// | 12-19 | swap data, or the number to add |
/// | 20-27 | compare data; 0 for fetch and add |
@frozen
public struct AtomicETH: WireFormat {
    /// Length on the wire: 28 bytes.
    @inlinable public static var byteCount: Int { 28 }
    /// The AtomicETH.
    @inlinable public static var part: PacketPart { .atomicETH }

    /// Address of the 8 bytes, a multiple of 8, in the responder's memory region.
    public var virtualAddress: UInt64
    /// R_Key of that region.
    public var remoteKey: UInt32
    /// What is stored when the comparison holds, or what is added.
    public var swapOrAdd: UInt64
    /// What the memory is compared with; 0 for fetch and add.
    public var compare: UInt64

    /// An AtomicETH of its four fields.
    @inlinable
    public init(virtualAddress: UInt64, remoteKey: UInt32, swapOrAdd: UInt64, compare: UInt64 = 0) {
        self.virtualAddress = virtualAddress
        self.remoteKey = remoteKey
        self.swapOrAdd = swapOrAdd
        self.compare = compare
    }

    /// Reads 28 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            virtualAddress: bytes.big(0, as: UInt64.self), remoteKey: bytes.big(8, as: UInt32.self),
            swapOrAdd: bytes.big(12, as: UInt64.self), compare: bytes.big(20, as: UInt64.self))
    }

    /// Writes 28 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, virtualAddress)
        bytes.setBig(8, remoteKey)
        bytes.setBig(12, swapOrAdd)
        bytes.setBig(20, compare)
    }
}

/// Atomic ACK extended transport header (IBTA volume 1, 9.5.3): bytes 0-7, what the memory held before.
@frozen
public struct AtomicAckETH: WireFormat {
    /// Length on the wire: 8 bytes.
    @inlinable public static var byteCount: Int { 8 }
    /// The AtomicAckETH.
    @inlinable public static var part: PacketPart { .atomicAckETH }

    /// What the memory held before the operation.
    public var original: UInt64

    /// An AtomicAckETH of its field.
    @inlinable
    public init(original: UInt64) { self.original = original }

    /// Reads 8 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(original: bytes.big(0, as: UInt64.self)) }

    /// Writes 8 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, original) }
}

/// Immediate data (IBTA volume 1, 9.3.6): bytes 0-3.
@frozen
public struct ImmDt: WireFormat {
    /// Length on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The immediate data.
    @inlinable public static var part: PacketPart { .immDt }

    /// The four bytes read as one big-endian number: `imm_data` of verbs.h, which is in network order, is
    /// `value.bigEndian`.
    public var value: UInt32

    /// Immediate data of this number.
    @inlinable
    public init(value: UInt32) { self.value = value }

    /// Reads 4 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(value: bytes.big(0, as: UInt32.self)) }

    /// Writes 4 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, value) }
}

/// Invalidate extended transport header (IBTA volume 1, 9.3.7): bytes 0-3, the R_Key to invalidate.
@frozen
public struct IETH: WireFormat {
    /// Length on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The IETH.
    @inlinable public static var part: PacketPart { .ieth }

    /// The R_Key that the responder is to invalidate.
    public var remoteKey: UInt32

    /// An IETH of its field.
    @inlinable
    public init(remoteKey: UInt32) { self.remoteKey = remoteKey }

    /// Reads 4 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(remoteKey: bytes.big(0, as: UInt32.self)) }

    /// Writes 4 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, remoteKey) }
}

/// FLUSH extended transport header (IBTA volume 1 release 1.5, annex A19).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3  | 31:6 | reserved |
/// |      | 5:4  | selectivity level |
/// |      | 3:0  | placement type |
@frozen
public struct FETH: WireFormat {
    /// Length on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The FETH.
    @inlinable public static var part: PacketPart { .feth }

    /// Placement type, 4 bits: 1 global visibility, 2 persistence, or both.
    public var placement: UInt8
    /// Selectivity level, 2 bits: 0 the memory region's range, 1 the whole region.
    public var selectivity: UInt8

    /// A FETH of its two fields.
    @inlinable
    public init(placement: UInt8, selectivity: UInt8) {
        self.placement = placement
        self.selectivity = selectivity
    }

    /// Reads 4 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        let low = UInt8(truncatingIfNeeded: bytes.big(0, as: UInt32.self))
        self.init(placement: low & 15, selectivity: low >> 4 & 3)
    }

    /// Writes 4 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, UInt32((selectivity & 3) << 4 | placement & 15))
    }
}
