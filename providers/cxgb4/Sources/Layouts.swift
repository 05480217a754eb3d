import ProviderKit

// The layouts of the memory that a T4, T5 or T6 adapter and its firmware share with the driver. They are in no header of
// the kernel's uapi; the structs named here are those of the kernel driver iw_cxgb4 (t4fw_ri_api.h, t4.h). Words are big
// endian, except where a field says otherwise.

// MARK: - Send work requests: units of 16 bytes, at slots of 64 bytes

/// The first 8 bytes of every work request: a little-endian word.
enum WorkRequestHeader {
    /// `FW_RI_…_WR` (`WorkRequestOpcode`).
    static var opcode: Field<UInt64> { Field(0, 0, 0, 8, .little) }
    /// `FW_RI_…_FLAG` (`WorkRequestFlags`).
    static var flags: Field<UInt64> { Field(1, 0, 8, 8, .little) }
    /// The index of the work request in its queue (`wrid`), which the CQE of a send has.
    static var index: Field<UInt64> { Field(2, 0, 16, 16, .little) }
    /// The size in units of 16 bytes (`len16`).
    static var length: Field<UInt64> { Field(3, 0, 56, 8, .little) }
}

/// A SEND (`struct fw_ri_send_wr`), which a payload follows.
enum SendRequest {
    static var byteCount: Int { 32 }
    /// `FW_RI_SEND`, `FW_RI_SEND_WITH_INV`, `FW_RI_SEND_WITH_SE` or `FW_RI_SEND_WITH_SE_INV` (`sendop_pkd`).
    static var operation: Field<UInt64> { Field(4, 8, 32, 4) }
    /// The rkey to invalidate at the peer (`stag_inv`).
    static var invalidated: Field<UInt64> { Field(5, 8, 0, 32) }
    /// The bytes of the message (`plen`). The reserved words after it are 0.
    static var length: Field<UInt64> { Field(6, 16, 32, 32) }
    static var reservedOffset: Int { 24 }
}

/// An RDMA WRITE (`struct fw_ri_rdma_write_wr`), which a payload follows.
enum WriteRequest {
    static var byteCount: Int { 32 }
    /// The immediate data (`imm_data32`). The reserved word after it is 0.
    static var immediate: Field<UInt64> { Field(7, 8, 32, 32) }
    static var length: Field<UInt64> { Field(8, 16, 32, 32) }
    /// The rkey (`stag_sink`).
    static var key: Field<UInt64> { Field(9, 16, 0, 32) }
    /// The remote address (`to_sink`).
    static var address: Field<UInt64> { Field(10, 24) }
}

/// An RDMA READ (`struct fw_ri_rdma_read_wr`): the sink is local, the source is remote. The word after the header is 0.
enum ReadRequest {
    static var byteCount: Int { 48 }
    static var reservedOffset: Int { 8 }
    static var sinkKey: Field<UInt64> { Field(11, 16, 32, 32) }
    static var sinkHigh: Field<UInt64> { Field(12, 16, 0, 32) }
    static var sinkLow: Field<UInt64> { Field(13, 24, 32, 32) }
    static var length: Field<UInt64> { Field(14, 24, 0, 32) }
    static var sourceKey: Field<UInt64> { Field(15, 32, 32, 32) }
    static var sourceHigh: Field<UInt64> { Field(16, 32, 0, 32) }
    static var sourceLow: Field<UInt64> { Field(17, 40, 32, 32) }
}

/// A local invalidation (`struct fw_ri_inv_lstag_wr`).
enum InvalidateRequest {
    static var byteCount: Int { 16 }
    /// The key to invalidate (`stag_inv`), and the reserved word before it.
    static var key: Field<UInt64> { Field(18, 8, 0, 32) }
}

/// A bind of a memory window (`struct fw_ri_bind_mw_wr`). The last word is 0.
enum BindRequest {
    static var byteCount: Int { 48 }
    static var reservedOffset: Int { 40 }
    /// Whether the window belongs to one queue pair, type 2 (`FW_RI_BIND_MW_WR_QPBINDE`).
    static var bindsQueuePair: Field<UInt64> { Field(19, 8, 62, 1) }
    /// `FW_RI_ZERO_BASED_TO` or `FW_RI_VA_BASED_TO` (`addr_type`).
    static var isVirtual: Field<UInt64> { Field(20, 8, 40, 8) }
    /// `FW_RI_MEM_ACCESS_…` (`mem_perms`).
    static var access: Field<UInt64> { Field(21, 8, 32, 8) }
    /// The lkey of the memory region (`stag_mr`).
    static var regionKey: Field<UInt64> { Field(22, 8, 0, 32) }
    /// The rkey of the window (`stag_mw`), and the reserved word after it.
    static var windowKey: Field<UInt64> { Field(23, 16, 32, 32) }
    static var length: Field<UInt64> { Field(24, 24) }
    static var address: Field<UInt64> { Field(25, 32) }
}

/// An RDMA WRITE and the SEND that follows it, as one work request (`struct fw_ri_rdma_write_cmpl_wr`). The header is
/// that of the WRITE. The payload of the SEND is in the struct, that of the WRITE follows it.
enum WriteSendRequest {
    static var byteCount: Int { 64 }
    /// The flags of the SEND's header (`flags_send`), and its index (`wrid_send`): a little-endian word.
    static var sendFlags: Field<UInt32> { Field(26, 8, 8, 8, .little) }
    static var sendIndex: Field<UInt32> { Field(27, 8, 16, 16, .little) }
    static var invalidated: Field<UInt32> { Field(28, 12) }
    /// The bytes of the WRITE (`plen`), its rkey and its remote address.
    static var length: Field<UInt64> { Field(29, 16, 32, 32) }
    static var key: Field<UInt64> { Field(30, 16, 0, 32) }
    static var address: Field<UInt64> { Field(31, 24) }
    static var sendPayloadOffset: Int { 32 }
    static var reservedOffset: Int { 56 }
}

// MARK: - Payloads

/// Inline data of 16 bytes in a `WriteSendRequest` (`struct fw_ri_immd_cmpl`).
enum ShortInlineData {
    /// `FW_RI_DATA_IMMD`.
    static var kind: Field<UInt64> { Field(32, 0, 56, 8) }
    static var length: Field<UInt64> { Field(33, 0, 0, 8) }
    static var dataOffset: Int { 8 }
}

/// The header of an SGE list (`struct fw_ri_isgl`), which the SGEs follow.
enum SGEListHeader {
    static var byteCount: Int { 8 }
    /// `FW_RI_DATA_ISGL`.
    static var kind: Field<UInt64> { Field(34, 0, 56, 8) }
    static var count: Field<UInt64> { Field(35, 0, 32, 16) }
}

/// An SGE (`struct fw_ri_sge`).
enum SGE {
    static var byteCount: Int { 16 }
    static var key: Field<UInt64> { Field(36, 0, 32, 32) }
    static var length: Field<UInt64> { Field(37, 0, 0, 32) }
    static var address: Field<UInt64> { Field(38, 8) }
}

/// The header of inline data (`struct fw_ri_immd`), which the bytes follow.
enum InlineDataHeader {
    static var byteCount: Int { 8 }
    /// `FW_RI_DATA_IMMD`.
    static var kind: Field<UInt64> { Field(39, 0, 56, 8) }
    static var length: Field<UInt64> { Field(40, 0, 0, 32) }
}

// MARK: - Receive work requests

/// A receive (`struct fw_ri_recv_wr`): the header, and an SGE list.
enum ReceiveRequest {
    static var listOffset: Int { 8 }
}

// MARK: - Status pages

/// The entry after the last one of a queue (`struct t4_status_page`).
enum StatusPage {
    /// Whether the queue pair is in error; in a completion queue, whether one of its queue pairs is to be flushed
    /// (`qp_err`). The kernel sets it.
    static var error: Field<UInt8> { Field(41, 12) }
    /// The number of the next slot (`host_wq_pidx`), in the order of the host. The kernel reads it to recover lost
    /// doorbells.
    static var nextSlot: Field<UInt16> { Field(42, 16, .little) }
    /// The index of the next work request (`host_pidx`), in the order of the host.
    static var nextRequest: Field<UInt16> { Field(68, 20, .little) }
    /// The RQT index of a shared receive that the queue pair had begun when its connection ended, or 0 (`srqidx`), in
    /// the order of the host.
    static var sharedReceive: Field<UInt32> { Field(43, 24, .little) }
    /// Words of an on-chip send queue that are written before the doorbell, so that the writes of the work request have
    /// reached the adapter's memory.
    static var flushed: Field<UInt32> { Field(44, 16, .little) }
}

/// The status page of the device (`struct t4_dev_status_page`), which only the kernel writes.
enum DeviceStatusPage {
    /// Whether doorbells are to be rung through the kernel (`db_off`).
    static var doorbellsOff: Field<UInt8> { Field(45, 0) }
    /// Whether the firmware has `WriteSendRequest` (`write_cmpl_supported`).
    static var pairsWriteAndSend: Field<UInt8> { Field(46, 1) }
}

// MARK: - Completion queue entries

/// A CQE (`struct t4_cqe_b64`, 64 bytes, or `struct t4_cqe_b32`, 32 bytes).
enum CQE {
    static var queuePair: Field<UInt32> { Field(47, 0, 12, 20) }
    /// `T4_ERR_…` (`CQEStatus`).
    static var status: Field<UInt32> { Field(48, 0, 5, 5) }
    /// Whether it completes a send (`CQE_TYPE`).
    static var isSend: Field<UInt32> { Field(49, 0, 4, 1) }
    /// `FW_RI_…` (`Operation`).
    static var operation: Field<UInt32> { Field(50, 0, 0, 4) }
    static var length: Field<UInt32> { Field(51, 4) }
    /// The invalidated rkey (`stag`). 1 in the response to a READ that the kernel sent to set up a connection.
    static var key: Field<UInt32> { Field(52, 8) }
    /// The index of a send (`cidx`), in the order of the host.
    static var index: Field<UInt16> { Field(53, 14, .little) }
    /// The message sequence number of a receive (`msn`).
    static var sequence: Field<UInt32> { Field(54, 12) }
    /// The immediate data (`imm_data32`).
    static var immediate: Field<UInt32> { Field(55, 16) }
    /// The RQT index of a shared receive (`abs_rqe_idx`).
    static var sharedReceive: Field<UInt32> { Field(56, 20) }
}

/// The last 8 bytes of a CQE (`bits_type_ts`), which the adapter writes last.
enum CQETail {
    static var byteCount: Int { 8 }
    /// The generation bit, which toggles with every pass over the ring, and is 1 in the first.
    static var generation: Field<UInt64> { Field(57, 0, 63, 1) }
}

// MARK: - Doorbells

/// The doorbell of a queue of a T5 or T6, in its segment of 128 bytes of BAR2 (`SGE_UDB_KDOORBELL`).
enum Doorbell5 {
    /// The queue's number in its page, 0 where the segment is that of the queue.
    static var queue: Field<UInt32> { Field(58, 8, 15, 17, .little) }
    /// The number of slots posted since the last doorbell.
    static var slots: Field<UInt32> { Field(59, 8, 0, 13, .little) }
    /// The 64 bytes that take a whole slot in place of the doorbell (`SGE_UDB_WCDOORBELL`).
    static var slot: Field<UInt64> { Field(60, 64) }
}

/// The doorbell of a queue of a T4 (`SGE_PF_KDOORBELL`).
enum Doorbell4 {
    static var queue: Field<UInt32> { Field(61, 0, 15, 17, .little) }
    static var slots: Field<UInt32> { Field(62, 0, 0, 14, .little) }
}

/// The register that returns consumed CQEs and arms a completion queue (`SGE_UDB_GTS`, `SGE_PF_GTS`).
enum GTS {
    /// The word of a T5 or T6; that of a T4 is at `offset4`.
    static var queue: Field<UInt32> { Field(63, 20, 16, 16, .little) }
    /// `GTSTimer`.
    static var timer: Field<UInt32> { Field(64, 20, 13, 3, .little) }
    /// Whether solicited completions alone raise an event (`SEINTARM`).
    static var solicitedOnly: Field<UInt32> { Field(65, 20, 12, 1, .little) }
    /// The number of consumed CQEs (`CIDXINC`).
    static var consumed: Field<UInt32> { Field(66, 20, 0, 12, .little) }
    static var offset4: Field<UInt32> { Field(67, 4, .little) }
}

/// The number of fields.
let fieldCount = 69

// MARK: - Constants

/// Sizes of the queues (`T4_EQ_ENTRY_SIZE`, `T4_SQ_NUM_SLOTS`, `T4_RQ_NUM_SLOTS` and others).
enum Limits {
    static var slotSize: Int { 64 }
    /// The slots of a queue per send and per receive work request.
    static var sendSlots: UInt32 { 5 }
    static var receiveSlots: UInt32 { 2 }
    static var sendSGE: UInt32 { 17 }
    static var receiveSGE: UInt32 { 4 }
    static var inlineData: UInt32 { 280 }
    /// What `WriteSendRequest` takes: the SGEs of the WRITE, and the bytes of the SEND.
    static var pairedSGE: UInt32 { 4 }
    static var pairedLength: UInt32 { 16 }
    /// The greatest number that a GTS register takes (`CIDXINC_M`).
    static var returned: UInt32 { 0xFFF }
}

/// `FW_RI_…_WR` (`enum fw_wr_opcodes`).
enum WorkRequestOpcode {
    static var write: UInt64 { 0x14 }
    static var send: UInt64 { 0x15 }
    static var read: UInt64 { 0x16 }
    static var receive: UInt64 { 0x17 }
    static var bind: UInt64 { 0x18 }
    static var invalidate: UInt64 { 0x1A }
    static var writeSend: UInt64 { 0x21 }
}

/// `enum fw_ri_wr_flags`.
enum WorkRequestFlags {
    static var signaled: UInt64 { 0x01 }
    static var solicited: UInt64 { 0x04 }
    static var readFence: UInt64 { 0x08 }
    static var localFence: UInt64 { 0x10 }
    static var immediate: UInt64 { 0x40 }
}

/// `enum fw_ri_data_op`.
enum PayloadKind {
    static var inlineData: UInt64 { 0x81 }
    static var sgeList: UInt64 { 0x83 }
}

/// `enum fw_ri_wr_opcode`: the operation of a completed work request.
enum Operation {
    static var write: UInt32 { 0x0 }
    static var read: UInt32 { 0x1 }
    static var readResponse: UInt32 { 0x2 }
    static var send: UInt32 { 0x3 }
    static var sendInvalidate: UInt32 { 0x4 }
    static var sendSolicited: UInt32 { 0x5 }
    static var sendSolicitedInvalidate: UInt32 { 0x6 }
    static var terminate: UInt32 { 0x7 }
    static var writeImmediate: UInt32 { 0x8 }
    static var bind: UInt32 { 0x9 }
    static var localInvalidate: UInt32 { 0xB }
}

/// `T4_ERR_…`, the values that the provider itself sets.
enum CQEStatus {
    static var flushed: UInt32 { 0x0C }
    static var sequence: UInt32 { 0x18 }
}

/// The timer of a GTS register: `returning` raises no event, `arming` raises one with the next completion.
enum GTSTimer {
    static var arming: UInt32 { 6 }
    static var returning: UInt32 { 7 }
}
