import CIBVerbs
import ProviderKit

/// A CQE as the adapter wrote it. Its contents are not trusted: callers check an index from it.
struct Completion {
    let cqe: UnsafeRawPointer

    @inline(__always)
    init(_ cqe: UnsafeRawPointer) { self.cqe = cqe }

    @inline(__always)
    var queuePair: UInt32 { CQE.queuePair.get(cqe) }
    @inline(__always)
    var status: UInt32 { CQE.status.get(cqe) }
    @inline(__always)
    var isSend: Bool { CQE.isSend.get(cqe) != 0 }
    @inline(__always)
    var operation: UInt32 { CQE.operation.get(cqe) }
    @inline(__always)
    var length: UInt32 { CQE.length.get(cqe) }
    @inline(__always)
    var key: UInt32 { CQE.key.get(cqe) }
    @inline(__always)
    var index: UInt32 { UInt32(CQE.index.get(cqe)) }
    @inline(__always)
    var sequence: UInt32 { CQE.sequence.get(cqe) }
    @inline(__always)
    var sharedReceive: UInt32 { CQE.sharedReceive.get(cqe) }

    /// `IBV_WC_…` of a status (`T4_ERR_…`).
    static func status(_ status: UInt32) -> ibv_wc_status {
        switch status {
        case 0x00: IBV_WC_SUCCESS
        case 0x01, 0x03, 0x04: IBV_WC_LOC_ACCESS_ERR
        case 0x02: IBV_WC_LOC_PROT_ERR
        case 0x05: IBV_WC_GENERAL_ERR
        case 0x06: IBV_WC_LOC_LEN_ERR
        case 0x07, 0x08: IBV_WC_MW_BIND_ERR
        case CQEStatus.flushed: IBV_WC_WR_FLUSH_ERR
        default: IBV_WC_FATAL_ERR
        }
    }

    /// Whether a send can have this operation in its CQE.
    @inline(__always)
    static func isOperationOfSend(_ operation: UInt32) -> Bool { sendOperations & (1 &<< operation) != 0 }

    /// Whether a receive can be completed by this operation.
    @inline(__always)
    static func isOperationOfReceive(_ operation: UInt32) -> Bool { receiveOperations & (1 &<< operation) != 0 }

    @inline(__always)
    private static var sendOperations: UInt32 {
        receiveOperations | 1 << Operation.write | 1 << Operation.read | 1 << Operation.bind
            | 1 << Operation.localInvalidate
    }

    @inline(__always)
    private static var receiveOperations: UInt32 {
        1 << Operation.send | 1 << Operation.sendInvalidate | 1 << Operation.sendSolicited
            | 1 << Operation.sendSolicitedInvalidate | 1 << Operation.writeImmediate
    }
}

// MARK: - As a work completion

extension UnsafeMutablePointer<ibv_wc> {
    /// Sets the completion of a send.
    /// - Parameter status: `T4_ERR_…`.
    @inline(__always)
    func putSent(_ send: PostedSend, status: UInt32, queuePair: UInt32) {
        pointee.wr_id = send.id
        putStatus(status)
        pointee.qp_num = queuePair
        pointee.wc_flags = 0
        pointee.byte_len = 0
        switch send.state.operation {
        case Operation.send, Operation.sendInvalidate: pointee.opcode = IBV_WC_SEND
        case Operation.write: pointee.opcode = IBV_WC_RDMA_WRITE
        case Operation.read:
            pointee.opcode = IBV_WC_RDMA_READ
            if status == 0 { pointee.byte_len = send.length }
        case Operation.bind: pointee.opcode = IBV_WC_BIND_MW
        default: pointee.opcode = IBV_WC_LOCAL_INV
        }
    }

    /// Sets the completion of a receive, except for `wr_id`.
    @inline(__always)
    func putReceived(_ completion: Completion, status: UInt32, queuePair: UInt32) {
        putStatus(status)
        pointee.qp_num = queuePair
        putNoSource()
        pointee.byte_len = status == 0 ? completion.length : 0
        switch completion.operation {
        case Operation.sendInvalidate, Operation.sendSolicitedInvalidate:
            pointee.opcode = IBV_WC_RECV
            pointee.invalidated_rkey = completion.key
            pointee.wc_flags = IBV_WC_WITH_INV.rawValue
        case Operation.writeImmediate:
            pointee.opcode = IBV_WC_RECV_RDMA_WITH_IMM
            pointee.imm_data = CQE.immediate.get(completion.cqe).bigEndian
            pointee.wc_flags = IBV_WC_WITH_IMM.rawValue
        default:
            pointee.opcode = IBV_WC_RECV
            pointee.wc_flags = 0
        }
    }

    /// Sets the completion of a receive that was flushed.
    func putFlushedReceive(_ id: UInt64, queuePair: UInt32) {
        pointee.wr_id = id
        putStatus(CQEStatus.flushed)
        pointee.qp_num = queuePair
        putNoSource()
        pointee.byte_len = 0
        pointee.opcode = IBV_WC_RECV
        pointee.wc_flags = 0
    }

    @inline(__always)
    private func putStatus(_ status: UInt32) {
        pointee.status = _fastPath(status == 0) ? IBV_WC_SUCCESS : Completion.status(status)
        pointee.vendor_err = status
    }

    /// The fields of other transports.
    @inline(__always)
    private func putNoSource() {
        pointee.src_qp = 0
        pointee.pkey_index = 0
        pointee.slid = 0
        pointee.sl = 0
        pointee.dlid_path_bits = 0
    }
}
