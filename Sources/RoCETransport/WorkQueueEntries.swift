import RoCEWire

/// A WQE of a send queue: the work request (`struct ibv_send_wr` of verbs.h, with its union flattened), followed by
/// fields of the engine. A provider fills it in and posts it (`QueuePair.stageSend`), which copies it to the queue
/// unchanged. Fields that the opcode does not use are ignored.
///
/// In the queue, the WQE is followed for UD by the path, and then by the SGEs or the inline data.
@frozen
public struct SendWQE: BitwiseCopyable {
    /// Returned as the completion's `id` (`ibv_send_wr.wr_id`).
    public var id: UInt64
    /// WRITE, READ, FLUSH and atomics: the address in the peer's memory region (`ibv_send_wr.wr.rdma.remote_addr`,
    /// `wr.atomic.remote_addr`).
    public var remoteAddress: UInt64
    /// Atomics: the operand that is compared or added (`ibv_send_wr.wr.atomic.compare_add`). FLUSH: see `flush`.
    public var compareAdd: UInt64
    /// Compare and swap: the new value (`ibv_send_wr.wr.atomic.swap`). ATOMIC WRITE with `.inline`: the 8 bytes.
    public var swap: UInt64
    /// WRITE, READ, FLUSH and atomics: the R_Key of the peer's memory region (`ibv_send_wr.wr.rdma.rkey`, `wr.atomic.rkey`).
    public var rkey: UInt32
    /// The immediate data, in network order (`ibv_send_wr.imm_data`), or the R_Key that is invalidated, here or at the
    /// peer (`ibv_send_wr.invalidate_rkey`).
    public var immediate: UInt32
    /// UD: the QPN of the peer (`ibv_send_wr.wr.ud.remote_qpn`). XRC: `remoteSRQN`.
    public var remoteQPN: UInt32
    /// UD: the Q_Key of the peer (`ibv_send_wr.wr.ud.remote_qkey`). When its top bit is set, the Q_Key of the queue
    /// pair is sent (IBTA volume 1, 3.5.3).
    public var remoteQKey: UInt32
    /// `opcode` and `flags`. Values above 255, which are not defined, are stored as 255, and fail when posted.
    @usableFromInline var opcodeByte: UInt8
    @usableFromInline var flagsByte: UInt8

    // Fields of the engine: set when the work request is posted.

    /// The number of SGEs.
    @usableFromInline var sgeCount: UInt8 = 0
    /// A READ: the binary logarithm of `readSegment`, set when the message is begun, and in bit 7 `isShortened`.
    @usableFromInline var readSegmentByte: UInt8 = 0
    /// The bytes of the message; 2^32 - 1 for a message of 2^32 bytes or more.
    @usableFromInline var length: UInt32 = 0

    // Set when the message is begun.

    /// The PSN of the first packet.
    @usableFromInline var firstPSN = PSN(0)
    /// The number of PSNs of the message: those of its packets, or for a READ of its response packets.
    @usableFromInline var packets: UInt32 = 0

    /// Creates a work request (`struct ibv_send_wr`) whose other fields are zero.
    @inlinable
    public init(id: UInt64, opcode: WorkRequestOpcode, flags: SendFlags = []) {
        self.id = id
        opcodeByte = UInt8(clamping: opcode.rawValue)
        flagsByte = UInt8(clamping: flags.rawValue)
        remoteAddress = 0
        compareAdd = 0
        swap = 0
        rkey = 0
        immediate = 0
        remoteQPN = 0
        remoteQKey = 0
    }

    /// Makes it a bind request (`IBV_WR_BIND_MW`).
    /// - Parameters:
    ///   - key: The R_Key of the window after the binding; its upper 24 bits are those of the window's R_Key now.
    ///   - lkey: The L_Key of the memory region (`bind_info.mr`); ignored for a length of 0.
    ///   - address: The address of the first byte in the memory region (`bind_info.addr`).
    ///   - length: The length in bytes (`bind_info.length`); 0 ends the binding of a window of type 1.
    ///   - access: The accesses that the window allows (`bind_info.mw_access_flags`).
    @inlinable
    public mutating func bind(key: UInt32, lkey: UInt32, address: UInt64, length: UInt64, access: AccessFlags) {
        rkey = key
        immediate = lkey
        remoteAddress = address
        compareAdd = length
        swap = UInt64(access.rawValue)
    }

    /// Makes it a FLUSH (`ibv_wr_flush`), with `remoteAddress` and `rkey`.
    /// - Parameters:
    ///   - length: The length of the range in bytes (`len`), which the selectivity level "memory region" ignores; a
    ///     length of more than 2^31 fails when posted.
    ///   - placement: The placement type, 4 bits: `IBV_FLUSH_GLOBAL` (1), `IBV_FLUSH_PERSISTENT` (2) or both.
    ///   - selectivity: The selectivity level, 2 bits: `IBV_FLUSH_RANGE` (0) or `IBV_FLUSH_MR` (1).
    @inlinable
    public mutating func flush(length: UInt64, placement: UInt8, selectivity: UInt8) {
        compareAdd = length
        swap = UInt64(placement) | UInt64(selectivity) << 8
    }

    /// XRC: the number of the shared receive queue of the peer, 24 bits (`ibv_send_wr.qp_type.xrc.remote_srqn`). It has
    /// the place of `remoteQPN`, which UD alone uses.
    @inlinable public var remoteSRQN: UInt32 {
        @inline(__always) get { remoteQPN }
        @inline(__always) set { remoteQPN = newValue }
    }

    /// The operation (`ibv_send_wr.opcode`).
    @inlinable public var opcode: WorkRequestOpcode {
        @inline(__always) get { WorkRequestOpcode(rawValue: UInt32(opcodeByte)) }
        @inline(__always) set { opcodeByte = UInt8(clamping: newValue.rawValue) }
    }

    /// The send flags (`ibv_send_wr.send_flags`).
    @inlinable public var flags: SendFlags {
        @inline(__always) get { SendFlags(rawValue: UInt32(flagsByte)) }
        @inline(__always) set { flagsByte = UInt8(clamping: newValue.rawValue) }
    }
}

extension SendWQE {
    static let size = 64

    /// Whether the operation uses a responder resource: READ, atomics, ATOMIC WRITE and FLUSH. An acknowledgement of a later
    /// request does not complete it.
    @inline(__always) var isReadOrAtomic: Bool {
        isRead || opcode == .compareAndSwap || opcode == .fetchAndAdd || isAtomicWrite || isFlush
    }
    @inline(__always) var isAtomicWrite: Bool { opcode == .atomicWrite }
    @inline(__always) var isFlush: Bool { opcode == .flush }
    /// FLUSH: the length of its range, the placement type and the selectivity level.
    @inline(__always) var flushLength: UInt64 { compareAdd }
    @inline(__always) var flushPlacement: UInt8 { UInt8(truncatingIfNeeded: swap) }
    @inline(__always) var flushSelectivity: UInt8 { UInt8(truncatingIfNeeded: swap >> 8) }
    @inline(__always) var isRead: Bool { opcode == .read }
    /// A READ: the number of response packets, a power of two, at whose multiples its requests end.
    @inline(__always) var readSegment: UInt32 { 1 << readSegmentShift }
    @inline(__always) var readSegmentShift: UInt32 { UInt32(readSegmentByte & 0x1F) }
    /// A READ: whether `readSegment` was longer for requests that were sent before.
    @inline(__always) var isShortened: Bool { readSegmentByte & 0x80 != 0 }
    /// Compare and swap, or fetch and add.
    @inline(__always) var isAtomic: Bool { opcode == .compareAndSwap || opcode == .fetchAndAdd }
    /// Whether the peer's processor need not do anything with it.
    @inline(__always) var isOneSided: Bool { opcode == .write || isReadOrAtomic }
    @inline(__always) var isSend: Bool {
        opcode == .send || opcode == .sendWithImmediate || opcode == .sendWithInvalidate
    }
    @inline(__always) var hasInvalidate: Bool { opcode == .sendWithInvalidate }
    /// Whether the engine executes the operation itself, without a packet.
    @inline(__always) var isLocal: Bool { opcode == .localInvalidate || opcode == .bindMemoryWindow }
    @inline(__always) var hasImmediate: Bool { opcode == .writeWithImmediate || opcode == .sendWithImmediate }

    var completionOpcode: CompletionOpcode {
        switch opcode {
        case .write, .writeWithImmediate: .write
        case .read: .read
        case .compareAndSwap: .compareAndSwap
        case .fetchAndAdd: .fetchAndAdd
        case .bindMemoryWindow: .bindMemoryWindow
        case .localInvalidate: .localInvalidate
        case .atomicWrite: .atomicWrite
        case .flush: .flush
        default: .send
        }
    }
}

/// A WQE of a receive queue (`struct ibv_recv_wr`), followed by its SGEs.
struct ReceiveWQE {
    /// `wr_id`.
    var id: UInt64
    /// `num_sge`.
    var sgeCount: UInt32
    /// The bytes of all its SGEs; 2^32 - 1 for 2^32 bytes or more.
    var length: UInt32

    static let size = 16

    /// The largest message that it can hold: no message is longer than 2^31 bytes (`Limits.maxMessageSize`).
    @inline(__always) var room: UInt32 { min(length, UInt32(Limits.maxMessageSize)) }
}
