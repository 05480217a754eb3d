import ProviderKit

// The layouts of the memory that an mlx5 device shares with its driver: the public structs of rdma-core's
// infiniband/mlx5dv.h, with which the tests compare them. All words are big endian.

// MARK: - Send WQEs: segments of multiples of 16 bytes

/// The control segment, the first segment of every WQE (`struct mlx5_wqe_ctrl_seg`).
enum ControlSegment {
    static var byteCount: Int { 16 }
    /// The number of the WQE's first WQEBB, modulo 2^16 (`pi` of mlx5dv_set_ctrl_seg).
    static var index: Field<UInt32> { Field(0, 0, 8, 16) }
    /// `MLX5_OPCODE_…`. The opcode modifier (`opmod`), the upper 8 bits of the word, is 0.
    static var opcode: Field<UInt32> { Field(1, 0, 0, 8) }
    static var queuePair: Field<UInt32> { Field(2, 4, 8, 24) }
    /// The size of the WQE in units of 16 bytes (`ds`).
    static var segments: Field<UInt32> { Field(3, 4, 0, 8) }
    /// `fm` of `fm_ce_se`. The other bytes of the word, `signature` and `dci_stream_channel_id`, are 0.
    static var fence: Field<UInt32> { Field(4, 8, 5, 3) }
    /// `ce` of `fm_ce_se`.
    static var completion: Field<UInt32> { Field(5, 8, 2, 2) }
    /// `se` of `fm_ce_se`.
    static var solicited: Field<UInt32> { Field(6, 8, 1, 1) }
    /// Immediate data, the rkey to invalidate (SEND with invalidate), or the mkey to modify (UMR).
    static var immediate: Field<UInt32> { Field(7, 12) }
}

/// The remote address segment of an RDMA or atomic operation (`struct mlx5_wqe_raddr_seg`).
enum RemoteAddressSegment {
    static var byteCount: Int { 16 }
    static var address: Field<UInt64> { Field(8, 0) }
    /// The rkey, and the reserved word after it.
    static var key: Field<UInt64> { Field(9, 8, 32, 32) }
}

/// The operands of an atomic operation (`struct mlx5_wqe_atomic_seg`).
enum AtomicSegment {
    static var byteCount: Int { 16 }
    static var swapOrAdd: Field<UInt64> { Field(10, 0) }
    static var compare: Field<UInt64> { Field(11, 8) }
}

/// A data segment: an SGE (`struct mlx5_wqe_data_seg`).
enum DataSegment {
    static var byteCount: Int { 16 }
    static var length: Field<UInt32> { Field(12, 0) }
    static var key: Field<UInt32> { Field(13, 4) }
    static var address: Field<UInt64> { Field(14, 8) }
}

/// The header of inline data, which the bytes follow (`struct mlx5_wqe_inl_data_seg`).
enum InlineSegment {
    static var headerByteCount: Int { 4 }
    /// `MLX5_INLINE_SEG`.
    static var isInline: Field<UInt32> { Field(15, 0, 31, 1) }
    static var length: Field<UInt32> { Field(16, 0, 0, 31) }
}

/// The address vector of a UD send (`struct mlx5_wqe_av`).
enum AddressVector {
    static var byteCount: Int { 48 }
    /// The Q_Key, and the reserved word after it.
    static var qkey: Field<UInt64> { Field(17, 0, 32, 32) }
    /// `MLX5_EXTENDED_UD_AV`.
    static var isExtended: Field<UInt32> { Field(18, 8, 31, 1) }
    static var queuePair: Field<UInt32> { Field(19, 8, 0, 24) }
    static var staticRate: Field<UInt8> { Field(20, 12, 4, 4) }
    static var serviceLevel: Field<UInt8> { Field(21, 12, 0, 4) }
    static var pathBits: Field<UInt8> { Field(22, 13, 0, 7) }
    /// The destination LID; for RoCEv2 the UDP source port (`rlid`).
    static var remoteLID: Field<UInt16> { Field(23, 14) }
    static var remoteMAC: Field<UInt32> { Field(24, 20) }
    static var remoteMACEnd: Field<UInt16> { Field(25, 24) }
    static var trafficClass: Field<UInt8> { Field(26, 26) }
    static var hopLimit: Field<UInt8> { Field(27, 27) }
    static var hasGRH: Field<UInt32> { Field(28, 28, 30, 1) }
    static var sourceGIDIndex: Field<UInt32> { Field(29, 28, 20, 8) }
    static var flowLabel: Field<UInt32> { Field(30, 28, 0, 20) }
    static var remoteGID: Field<UInt64> { Field(31, 32) }
    static var remoteGIDEnd: Field<UInt64> { Field(32, 40) }
}

/// The UMR control segment (`struct mlx5_wqe_umr_ctrl_seg`).
enum UMRControlSegment {
    static var byteCount: Int { 48 }
    /// The flags (`MLX5_WQE_UMR_CTRL_FLAG_…`) share a word whose other bits are reserved.
    static var isInline: Field<UInt32> { Field(33, 0, 31, 1) }
    static var checksFree: Field<UInt32> { Field(34, 0, 29, 1) }
    static var hasTranslationOffset: Field<UInt32> { Field(35, 0, 28, 1) }
    static var checksQueuePair: Field<UInt32> { Field(36, 0, 27, 1) }
    /// The size of the KLM list in units of 16 bytes (`klm_octowords`). The word also has `translation_offset`, which
    /// is 0.
    static var klmOctowords: Field<UInt32> { Field(37, 4, 16, 16) }
    /// The mkey fields to modify (`mkey_mask`, `MKeyMask`).
    static var mask: Field<UInt64> { Field(38, 8) }
}

/// The mkey context segment: the new contents of the mkey (`struct mlx5_wqe_mkey_context_seg`).
enum MKeyContextSegment {
    static var byteCount: Int { 64 }
    static var isFree: Field<UInt8> { Field(39, 0, 6, 1) }
    /// `MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_…`, whose lowest bit is local read.
    static var access: Field<UInt8> { Field(40, 2, 2, 5) }
    /// The QPN and the variable byte of the mkey (`qpn_mkey`).
    static var queuePair: Field<UInt32> { Field(41, 4, 8, 24) }
    static var key: Field<UInt32> { Field(42, 4, 0, 8) }
    static var address: Field<UInt64> { Field(43, 16) }
    static var length: Field<UInt64> { Field(44, 24) }
}

/// A KLM (`struct mlx5_wqe_umr_klm_seg`): the memory of an mkey. A list of one KLM is padded with zeros to 64 bytes.
enum KLMSegment {
    static var byteCount: Int { 64 }
    static var length: Field<UInt32> { Field(45, 0) }
    static var key: Field<UInt32> { Field(46, 4) }
    static var address: Field<UInt64> { Field(47, 8) }
}

// MARK: - Shared receive queues

/// The next segment of a WQE, which precedes its data segments (`struct mlx5_wqe_srq_next_seg`).
enum NextSegment {
    static var byteCount: Int { 16 }
    /// The index of the WQE that follows in the list (`next_wqe_index`).
    static var next: Field<UInt16> { Field(48, 2) }
}

// MARK: - CQEs

/// A CQE (`struct mlx5_cqe64`): 64 bytes, which are the second half of a 128-byte CQE.
enum CQE {
    static var byteCount: Int { 64 }
    /// `ml_path`.
    static var pathBits: Field<UInt8> { Field(49, 17, 0, 7) }
    static var sourceLID: Field<UInt16> { Field(50, 22) }
    /// Nonzero if the message has a GRH (`flags_rqpn`, which also has the SL and the source QPN).
    static var hasGRH: Field<UInt32> { Field(51, 24, 28, 2) }
    static var serviceLevel: Field<UInt32> { Field(52, 24, 24, 4) }
    static var sourceQueuePair: Field<UInt32> { Field(53, 24, 0, 24) }
    /// CQE version 1: the user index of the queue pair. Version 0: the SRQN, or 0 (`srqn_uidx`).
    static var userIndex: Field<UInt32> { Field(54, 32, 0, 24) }
    /// The immediate data, the invalidated rkey, or the P_Key index (`imm_inval_pkey`).
    static var immediate: Field<UInt32> { Field(55, 36) }
    static var pkeyIndex: Field<UInt32> { Field(56, 36, 0, 16) }
    /// `byte_cnt`.
    static var length: Field<UInt32> { Field(57, 44) }
    static var timestamp: Field<UInt64> { Field(58, 48) }
    /// Error CQEs (`struct mlx5_err_cqe`) have this and the syndrome in place of the last bytes of the timestamp.
    static var vendorError: Field<UInt8> { Field(59, 54) }
    static var syndrome: Field<UInt8> { Field(60, 55) }
    /// `MLX5_OPCODE_…` of the send WQE (`sop_drop_qpn`, which also has the QPN).
    static var sendOpcode: Field<UInt32> { Field(61, 56, 24, 8) }
    static var queuePair: Field<UInt32> { Field(62, 56, 0, 24) }
    /// The number of a send WQE's first WQEBB; the index of a WQE of a shared receive queue (`wqe_counter`).
    static var index: Field<UInt16> { Field(63, 60) }
    /// `MLX5_CQE_…` (`op_own`, the last byte of the CQE, which also has the owner bit).
    static var opcode: Field<UInt8> { Field(64, 63, 4, 4) }
    /// Data scattered to the CQE: 1 is up to 32 bytes, in the CQE; 2 is up to 64 bytes, in the first half of a 128-byte
    /// CQE (`MLX5_INLINE_SCATTER_32`, `MLX5_INLINE_SCATTER_64`).
    static var inlineData: Field<UInt8> { Field(65, 63, 2, 2) }
    static var owner: Field<UInt8> { Field(66, 63, 0, 1) }
}

// MARK: - Doorbells

/// The doorbell record of a completion queue: the consumer index, and the arm word.
enum CompletionQueueDoorbellRecord {
    static var consumer: Field<UInt32> { Field(67, 0, 0, 24) }
    static var armSequence: Field<UInt32> { Field(68, 4, 28, 2) }
    static var solicitedOnly: Field<UInt32> { Field(69, 4, 24, 1) }
    static var armConsumer: Field<UInt32> { Field(70, 4, 0, 24) }
}

/// The doorbell record of a queue pair: the number of posted receive WQEs (`MLX5_RCV_DBR`), and the number of posted
/// send WQEBBs (`MLX5_SND_DBR`), both modulo 2^16.
enum QueuePairDoorbellRecord {
    static var receives: Field<UInt32> { Field(71, 0, 0, 16) }
    static var sends: Field<UInt32> { Field(72, 4, 0, 16) }
}

/// The doorbell record of a shared receive queue: the number of posted WQEs.
enum SharedReceiveQueueDoorbellRecord {
    static var receives: Field<UInt32> { Field(73, 0) }
}

/// The doorbell of completion queues in a UAR page (`MLX5_CQ_DOORBELL`): the arm word of the doorbell record, and the
/// CQN.
enum CompletionQueueDoorbell {
    static var request: Field<UInt64> { Field(74, 0x20, 32, 32) }
    static var completionQueue: Field<UInt64> { Field(75, 0x20, 0, 32) }
}

/// The number of fields.
let fieldCount = 76

// MARK: - Constants

/// The opcodes of send WQEs (`MLX5_OPCODE_…`).
enum Opcode {
    static var sendInvalidate: UInt32 { 0x01 }
    static var write: UInt32 { 0x08 }
    static var writeImmediate: UInt32 { 0x09 }
    static var send: UInt32 { 0x0A }
    static var sendImmediate: UInt32 { 0x0B }
    static var read: UInt32 { 0x10 }
    static var compareSwap: UInt32 { 0x11 }
    static var fetchAdd: UInt32 { 0x12 }
    static var umr: UInt32 { 0x25 }
}

/// Values of `ControlSegment.fence` and `.completion`.
enum Control {
    /// Waits for earlier READs and atomic operations (`MLX5_WQE_CTRL_FENCE`).
    static var fence: UInt32 { 4 }
    /// Waits for earlier UMRs (`MLX5_WQE_CTRL_INITIATOR_SMALL_FENCE`).
    static var smallFence: UInt32 { 1 }
    /// `MLX5_WQE_CTRL_CQ_UPDATE`.
    static var signaled: UInt32 { 2 }
}

/// Bits of `UMRControlSegment.mask` (`MLX5_WQE_UMR_CTRL_MKEY_MASK_…`).
enum MKeyMask {
    static var length: UInt64 { 1 << 0 }
    static var address: UInt64 { 1 << 6 }
    static var key: UInt64 { 1 << 13 }
    static var queuePair: UInt64 { 1 << 14 }
    /// Local write, remote read, remote write, atomic.
    static var access: UInt64 { 0xF << 18 }
    static var isFree: UInt64 { 1 << 29 }
}

/// The lkey that ends a list of data segments (`MLX5_INVALID_LKEY`).
let invalidLKey: UInt32 = 0x100

/// The opcode of a CQE (`MLX5_CQE_…`).
struct CQEOpcode: Equatable {
    let rawValue: UInt8

    static var request: Self { Self(rawValue: 0) }
    static var writeImmediate: Self { Self(rawValue: 1) }
    static var send: Self { Self(rawValue: 2) }
    static var sendImmediate: Self { Self(rawValue: 3) }
    static var sendInvalidate: Self { Self(rawValue: 4) }
    static var resize: Self { Self(rawValue: 5) }
    static var requestError: Self { Self(rawValue: 13) }
    static var responseError: Self { Self(rawValue: 14) }
    /// The device has not written the CQE (`MLX5_CQE_INVALID`).
    static var invalid: Self { Self(rawValue: 15) }
}
