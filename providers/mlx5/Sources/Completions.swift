import CIBVerbs
import ProviderKit

/// A CQE as the device wrote it (`struct mlx5_cqe64`). Its contents are not trusted: callers mask or check an index
/// from it.
struct Completion {
    /// The 64 bytes of `struct mlx5_cqe64`.
    let cqe: UnsafeRawPointer
    /// Whether the CQE has 128 bytes: 64 bytes precede `cqe`.
    let isLarge: Bool

    @inline(__always)
    init(_ cqe: UnsafeRawPointer, isLarge: Bool = false) {
        self.cqe = cqe
        self.isLarge = isLarge
    }

    @inline(__always)
    var opcode: CQEOpcode { CQEOpcode(rawValue: CQE.opcode.get(cqe)) }

    @inline(__always)
    var queuePair: UInt32 { CQE.queuePair.get(cqe) }

    @inline(__always)
    var userIndex: UInt32 { CQE.userIndex.get(cqe) }

    @inline(__always)
    var index: UInt32 { UInt32(CQE.index.get(cqe)) }

    @inline(__always)
    var length: UInt32 { CQE.length.get(cqe) }

    @inline(__always)
    var isError: Bool { opcode.rawValue &- CQEOpcode.requestError.rawValue <= 1 }

    /// The opcode of a successful send; nil for a UMR, whose opcode is in `PostedSend.opcode`.
    @inline(__always)
    var sendOpcode: ibv_wc_opcode? {
        switch CQE.sendOpcode.get(cqe) {
        case Opcode.write, Opcode.writeImmediate: IBV_WC_RDMA_WRITE
        case Opcode.send, Opcode.sendImmediate, Opcode.sendInvalidate: IBV_WC_SEND
        case Opcode.read: IBV_WC_RDMA_READ
        case Opcode.compareSwap: IBV_WC_COMP_SWAP
        case Opcode.fetchAdd: IBV_WC_FETCH_ADD
        default: nil
        }
    }

    /// `ibv_wc.byte_len` of a READ or atomic operation; 0 for other operations.
    @inline(__always)
    var sendLength: UInt32 {
        switch CQE.sendOpcode.get(cqe) {
        case Opcode.read: length
        case Opcode.compareSwap, Opcode.fetchAdd: 8
        default: 0
        }
    }

    @inline(__always)
    var sendFlags: UInt32 {
        switch CQE.sendOpcode.get(cqe) {
        case Opcode.writeImmediate, Opcode.sendImmediate: IBV_WC_WITH_IMM.rawValue
        default: 0
        }
    }

    /// The opcode of a receive completion.
    @inline(__always)
    var receiveOpcode: ibv_wc_opcode { opcode == .writeImmediate ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV }

    @inline(__always)
    var receiveFlags: UInt32 {
        let grh = CQE.hasGRH.get(cqe) != 0 ? IBV_WC_GRH.rawValue : 0
        switch opcode {
        case .writeImmediate, .sendImmediate: return grh | IBV_WC_WITH_IMM.rawValue
        case .sendInvalidate: return grh | IBV_WC_WITH_INV.rawValue
        default: return grh
        }
    }

    /// `ibv_wc.imm_data` (big endian), or `invalidated_rkey`.
    @inline(__always)
    var immediate: UInt32 {
        let value = CQE.immediate.get(cqe)
        return opcode == .sendInvalidate ? value : value.bigEndian
    }

    @inline(__always)
    var sourceQueuePair: UInt32 { CQE.sourceQueuePair.get(cqe) }

    @inline(__always)
    var serviceLevel: UInt8 { UInt8(truncatingIfNeeded: CQE.serviceLevel.get(cqe)) }

    @inline(__always)
    var sourceLID: UInt16 { CQE.sourceLID.get(cqe) }

    @inline(__always)
    var pathBits: UInt8 { CQE.pathBits.get(cqe) }

    @inline(__always)
    var pkeyIndex: UInt16 { UInt16(truncatingIfNeeded: CQE.pkeyIndex.get(cqe)) }

    /// The timestamp in ticks of the device's clock (`hca_core_clock`).
    @inline(__always)
    var timestamp: UInt64 { CQE.timestamp.get(cqe) }

    /// Data scattered to the CQE instead of the posted buffers (MLX5_INLINE_SCATTER_32, MLX5_INLINE_SCATTER_64): its
    /// address and the maximum size. Nil if there is none.
    @inline(__always)
    var inlineData: (bytes: UnsafeRawPointer, capacity: UInt32)? {
        switch CQE.inlineData.get(cqe) {
        case 0: nil
        case 1: (cqe, 32)
        default: isLarge ? (cqe - CQE.byteCount, 64) : (cqe, 0)
        }
    }

    var vendorError: UInt32 { UInt32(CQE.vendorError.get(cqe)) }

    /// The error syndrome (`MLX5_CQE_SYNDROME_…`).
    var errorStatus: ibv_wc_status {
        switch CQE.syndrome.get(cqe) {
        case 0x01: IBV_WC_LOC_LEN_ERR
        case 0x02: IBV_WC_LOC_QP_OP_ERR
        case 0x04: IBV_WC_LOC_PROT_ERR
        case 0x05: IBV_WC_WR_FLUSH_ERR
        case 0x06: IBV_WC_MW_BIND_ERR
        case 0x10: IBV_WC_BAD_RESP_ERR
        case 0x11: IBV_WC_LOC_ACCESS_ERR
        case 0x12: IBV_WC_REM_INV_REQ_ERR
        case 0x13: IBV_WC_REM_ACCESS_ERR
        case 0x14: IBV_WC_REM_OP_ERR
        case 0x15: IBV_WC_RETRY_EXC_ERR
        case 0x16: IBV_WC_RNR_RETRY_EXC_ERR
        case 0x22: IBV_WC_REM_ABORT_ERR
        default: IBV_WC_GENERAL_ERR
        }
    }
}

// MARK: - As a work completion

extension Completion {
    /// Sets the `ibv_wc` of a successful send, except for `wr_id`.
    @inline(__always)
    func writeSent(_ wc: UnsafeMutablePointer<ibv_wc>, postedOpcode: UInt32) {
        wc.pointee.opcode = sendOpcode ?? ibv_wc_opcode(postedOpcode)
        wc.pointee.byte_len = sendLength
        wc.pointee.wc_flags = sendFlags
        wc.pointee.qp_num = queuePair
    }

    /// Sets the `ibv_wc` of a successful receive, except for `wr_id`.
    @inline(__always)
    func writeReceived(_ wc: UnsafeMutablePointer<ibv_wc>) {
        wc.pointee.opcode = receiveOpcode
        wc.pointee.byte_len = length
        wc.pointee.imm_data = immediate
        wc.pointee.qp_num = queuePair
        wc.pointee.src_qp = sourceQueuePair
        wc.pointee.wc_flags = receiveFlags
        wc.pointee.pkey_index = pkeyIndex
        wc.pointee.slid = sourceLID
        wc.pointee.sl = serviceLevel
        wc.pointee.dlid_path_bits = pathBits
    }

    /// Sets the `ibv_wc` of a failed or flushed work request, except for `wr_id`.
    @inline(__always)
    func writeError(_ wc: UnsafeMutablePointer<ibv_wc>) {
        wc.pointee.status = errorStatus
        wc.pointee.vendor_err = vendorError
        wc.pointee.qp_num = queuePair
        wc.pointee.wc_flags = 0
    }
}
