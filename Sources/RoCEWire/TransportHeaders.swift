/// Extended reliable connection extended transport header (IBTA volume 1, annex A14), which every XRC request has.
///
/// | byte | field |
/// |------|-------|
/// | 0    | reserved |
/// | 1-3  | XRC SRQ |
@frozen
public struct XRCETH: WireFormat {
    /// The length of the XRCETH on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The name of this header in errors: XRCETH.
    @inlinable public static var part: PacketPart { .xrceth }

    /// XRCETH.XRCSRQ: the number of the shared receive queue at the responder, 24 bits (`ibv_get_srq_num`,
    /// `ibv_send_wr.qp_type.xrc.remote_srqn`). Higher bits are dropped.
    public var sharedReceiveQueueNumber: UInt32

    /// Creates an XRCETH with this number.
    @inlinable
    public init(sharedReceiveQueueNumber: UInt32) { self.sharedReceiveQueueNumber = sharedReceiveQueueNumber }

    /// Reads the 4 bytes of an XRCETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(sharedReceiveQueueNumber: low24(bytes.big(0, as: UInt32.self)))
    }

    /// Writes the 4 bytes of the XRCETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, low24(sharedReceiveQueueNumber)) }
}

/// Datagram extended transport header (IBTA volume 1, 9.3.2; `struct rxe_deth` of the kernel's rxe).
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | Q_Key |
/// | 4    | reserved |
/// | 5-7  | source QP |
@frozen
public struct DETH: WireFormat {
    /// The length of the DETH on the wire: 8 bytes.
    @inlinable public static var byteCount: Int { 8 }
    /// The name of this header in errors: DETH.
    @inlinable public static var part: PacketPart { .deth }

    /// DETH.Q_Key: the Q_Key of the destination queue pair (`ibv_send_wr.wr.ud.remote_qkey`).
    public var qkey: UInt32
    /// DETH.SrcQP: the QPN of the source, 24 bits (`ibv_wc.src_qp`). Higher bits are dropped.
    public var sourceQPN: UInt32

    /// Creates a DETH with these fields.
    @inlinable
    public init(qkey: UInt32, sourceQPN: UInt32) {
        self.qkey = qkey
        self.sourceQPN = sourceQPN
    }

    /// Reads the 8 bytes of a DETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(qkey: bytes.big(0, as: UInt32.self), sourceQPN: low24(bytes.big(4, as: UInt32.self)))
    }

    /// Writes the 8 bytes of the DETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, qkey)
        bytes.setBig(4, low24(sourceQPN))
    }
}

/// RDMA extended transport header (IBTA volume 1, 9.3.3; `struct rxe_reth` of the kernel's rxe).
///
/// | byte  | field |
/// |-------|-------|
/// | 0-7   | virtual address |
/// | 8-11  | R_Key |
/// | 12-15 | DMA length |
@frozen
public struct RETH: WireFormat {
    /// The length of the RETH on the wire: 16 bytes.
    @inlinable public static var byteCount: Int { 16 }
    /// The name of this header in errors: RETH.
    @inlinable public static var part: PacketPart { .reth }

    /// RETH.VA: the address in the responder's memory region (`ibv_send_wr.wr.rdma.remote_addr`).
    public var virtualAddress: UInt64
    /// RETH.R_Key: the R_Key of that region (`ibv_send_wr.wr.rdma.rkey`).
    public var rkey: UInt32
    /// RETH.DMALen: the bytes of the whole message, not of the packet. A retransmitted READ request
    /// contains the bytes that are still missing (IBTA volume 1, 9.4.4).
    public var dmaLength: UInt32

    /// Creates an RETH with these fields.
    @inlinable
    public init(virtualAddress: UInt64, rkey: UInt32, dmaLength: UInt32) {
        self.virtualAddress = virtualAddress
        self.rkey = rkey
        self.dmaLength = dmaLength
    }

    /// Reads the 16 bytes of an RETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            virtualAddress: bytes.big(0, as: UInt64.self), rkey: bytes.big(8, as: UInt32.self),
            dmaLength: bytes.big(12, as: UInt32.self))
    }

    /// Writes the 16 bytes of the RETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, virtualAddress)
        bytes.setBig(8, rkey)
        bytes.setBig(12, dmaLength)
    }
}

/// Atomic extended transport header (IBTA volume 1, 9.3.4; `struct rxe_atmeth` of the kernel's rxe).
///
/// | byte  | field |
/// |-------|-------|
/// | 0-7   | virtual address |
/// | 8-11  | R_Key |
/// | 12-19 | swap data, or the number to add |
/// | 20-27 | compare data; 0 for fetch and add |
@frozen
public struct AtomicETH: WireFormat {
    /// The length of the AtomicETH on the wire: 28 bytes.
    @inlinable public static var byteCount: Int { 28 }
    /// The name of this header in errors: AtomicETH.
    @inlinable public static var part: PacketPart { .atomicETH }

    /// AtomicETH.VA: the address of the 8 bytes in the responder's memory region, a multiple of 8
    /// (`ibv_send_wr.wr.atomic.remote_addr`).
    public var virtualAddress: UInt64
    /// AtomicETH.R_Key: the R_Key of that region (`ibv_send_wr.wr.atomic.rkey`).
    public var rkey: UInt32
    /// AtomicETH.SwapDt, swap (or add) data: the new value for compare and swap (`ibv_send_wr.wr.atomic.swap`), or the
    /// operand of fetch and add (`compare_add`).
    public var swapOrAdd: UInt64
    /// AtomicETH.CmpDt, compare data: the value that the memory is compared with (`ibv_send_wr.wr.atomic.compare_add`);
    /// 0 for fetch and add.
    public var compare: UInt64

    /// Creates an AtomicETH with these fields.
    @inlinable
    public init(virtualAddress: UInt64, rkey: UInt32, swapOrAdd: UInt64, compare: UInt64 = 0) {
        self.virtualAddress = virtualAddress
        self.rkey = rkey
        self.swapOrAdd = swapOrAdd
        self.compare = compare
    }

    /// Reads the 28 bytes of an AtomicETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            virtualAddress: bytes.big(0, as: UInt64.self), rkey: bytes.big(8, as: UInt32.self),
            swapOrAdd: bytes.big(12, as: UInt64.self), compare: bytes.big(20, as: UInt64.self))
    }

    /// Writes the 28 bytes of the AtomicETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, virtualAddress)
        bytes.setBig(8, rkey)
        bytes.setBig(12, swapOrAdd)
        bytes.setBig(20, compare)
    }
}

/// Atomic ACK extended transport header (IBTA volume 1, 9.5.3; `struct rxe_atmack` of the kernel's rxe): bytes 0-7, the
/// original remote data.
@frozen
public struct AtomicAckETH: WireFormat {
    /// The length of the AtomicAckETH on the wire: 8 bytes.
    @inlinable public static var byteCount: Int { 8 }
    /// The name of this header in errors: AtomicAckETH.
    @inlinable public static var part: PacketPart { .atomicAckETH }

    /// AtomicAckETH.OrigRemDt, original remote data: the value of the memory before the operation.
    public var original: UInt64

    /// Creates an AtomicAckETH with these fields.
    @inlinable
    public init(original: UInt64) { self.original = original }

    /// Reads the 8 bytes of an AtomicAckETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(original: bytes.big(0, as: UInt64.self)) }

    /// Writes the 8 bytes of the AtomicAckETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, original) }
}

/// Immediate data (IBTA volume 1, 9.3.6; `struct rxe_immdt` of the kernel's rxe): bytes 0-3.
@frozen
public struct ImmDt: WireFormat {
    /// The length of the ImmDt on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The name of this header in errors: ImmDt.
    @inlinable public static var part: PacketPart { .immDt }

    /// ImmDt: the four bytes as one big-endian number. `ibv_send_wr.imm_data` and `ibv_wc.imm_data`, which are in
    /// network order, are `value.bigEndian`.
    public var value: UInt32

    /// Creates an ImmDt with this number.
    @inlinable
    public init(value: UInt32) { self.value = value }

    /// Reads the 4 bytes of an ImmDt in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(value: bytes.big(0, as: UInt32.self)) }

    /// Writes the 4 bytes of the ImmDt in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, value) }
}

/// Invalidate extended transport header (IBTA volume 1, 9.3.7; `struct rxe_ieth` of the kernel's rxe): bytes 0-3, the
/// R_Key to invalidate.
@frozen
public struct IETH: WireFormat {
    /// The length of the IETH on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The name of this header in errors: IETH.
    @inlinable public static var part: PacketPart { .ieth }

    /// IETH.R_Key: the R_Key that the responder invalidates (`ibv_send_wr.invalidate_rkey`, `ibv_wc.invalidated_rkey`).
    public var rkey: UInt32

    /// Creates an IETH with this R_Key.
    @inlinable
    public init(rkey: UInt32) { self.rkey = rkey }

    /// Reads the 4 bytes of an IETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) { self.init(rkey: bytes.big(0, as: UInt32.self)) }

    /// Writes the 4 bytes of the IETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) { bytes.setBig(0, rkey) }
}

/// FLUSH extended transport header (IBTA volume 1 release 1.5, annex A19; `struct rxe_feth` of the kernel's rxe).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0-3  | 31:6 | reserved |
/// |      | 5:4  | selectivity level |
/// |      | 3:0  | placement type |
@frozen
public struct FETH: WireFormat {
    /// The length of the FETH on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The name of this header in errors: FETH.
    @inlinable public static var part: PacketPart { .feth }

    /// FETH.PLT, placement type, 4 bits: 1 global visibility, 2 persistence, or both (annex A19.4.1.1;
    /// `IB_FLUSH_GLOBAL`, `IB_FLUSH_PERSISTENT` of rdma/ib_user_verbs.h).
    public var placement: UInt8
    /// FETH.SEL, selectivity level, 2 bits: 0 the range of the RETH, 1 the whole memory region (annex A19.4.1.2;
    /// `IB_FLUSH_RANGE`, `IB_FLUSH_MR`).
    public var selectivity: UInt8

    /// Creates a FETH with these fields.
    @inlinable
    public init(placement: UInt8, selectivity: UInt8) {
        self.placement = placement
        self.selectivity = selectivity
    }

    /// Reads the 4 bytes of a FETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        let low = UInt8(truncatingIfNeeded: bytes.big(0, as: UInt32.self))
        self.init(placement: low & 15, selectivity: low >> 4 & 3)
    }

    /// Writes the 4 bytes of the FETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, UInt32((selectivity & 3) << 4 | placement & 15))
    }
}
