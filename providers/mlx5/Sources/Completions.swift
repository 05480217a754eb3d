import CIBVerbs
import ProviderKit

/// A completion as the device wrote it. Nothing in it is trusted: whoever takes an index from it masks or checks it.
struct Completion {
    /// The 64 bytes of CompletionEntry.
    let entry: UnsafeRawPointer
    /// Whether there are 64 bytes in front of it that belong to it.
    let isLarge: Bool

    @inline(__always)
    init(_ entry: UnsafeRawPointer, isLarge: Bool = false) {
        self.entry = entry
        self.isLarge = isLarge
    }

    @inline(__always)
    var kind: CompletionKind { CompletionKind(rawValue: CompletionEntry.opcode.get(entry)) }

    @inline(__always)
    var queuePair: UInt32 { CompletionEntry.queuePair.get(entry) }

    @inline(__always)
    var userIndex: UInt32 { CompletionEntry.userIndex.get(entry) }

    @inline(__always)
    var index: UInt32 { UInt32(CompletionEntry.index.get(entry)) }

    @inline(__always)
    var length: UInt32 { CompletionEntry.length.get(entry) }

    @inline(__always)
    var isError: Bool { kind.rawValue &- CompletionKind.requestError.rawValue <= 1 }

    /// Of a request that has succeeded; nil for the operations that the device calls alike, where the request's own note
    /// says what it was.
    @inline(__always)
    var sendOpcode: ibv_wc_opcode? {
        switch CompletionEntry.sendOpcode.get(entry) {
        case Opcode.write, Opcode.writeImmediate: IBV_WC_RDMA_WRITE
        case Opcode.send, Opcode.sendImmediate, Opcode.sendInvalidate: IBV_WC_SEND
        case Opcode.read: IBV_WC_RDMA_READ
        case Opcode.compareSwap: IBV_WC_COMP_SWAP
        case Opcode.fetchAdd: IBV_WC_FETCH_ADD
        default: nil
        }
    }

    /// How much data a request has brought; 0 for one that brings none.
    @inline(__always)
    var sendLength: UInt32 {
        switch CompletionEntry.sendOpcode.get(entry) {
        case Opcode.read: length
        case Opcode.compareSwap, Opcode.fetchAdd: 8
        default: 0
        }
    }

    @inline(__always)
    var sendFlags: UInt32 {
        switch CompletionEntry.sendOpcode.get(entry) {
        case Opcode.writeImmediate, Opcode.sendImmediate: IBV_WC_WITH_IMM.rawValue
        default: 0
        }
    }

    /// Of a message that has arrived.
    @inline(__always)
    var receiveOpcode: ibv_wc_opcode { kind == .writeImmediate ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV }

    @inline(__always)
    var receiveFlags: UInt32 {
        let grh = CompletionEntry.hasGRH.get(entry) != 0 ? IBV_WC_GRH.rawValue : 0
        switch kind {
        case .writeImmediate, .sendImmediate: return grh | IBV_WC_WITH_IMM.rawValue
        case .sendInvalidate: return grh | IBV_WC_WITH_INV.rawValue
        default: return grh
        }
    }

    /// Immediate data as it lies there, big endian; or the key that was invalidated.
    @inline(__always)
    var immediate: UInt32 {
        let value = CompletionEntry.immediate.get(entry)
        return kind == .sendInvalidate ? value : value.bigEndian
    }

    @inline(__always)
    var sourceQueuePair: UInt32 { CompletionEntry.sourceQueuePair.get(entry) }

    @inline(__always)
    var serviceLevel: UInt8 { UInt8(truncatingIfNeeded: CompletionEntry.serviceLevel.get(entry)) }

    @inline(__always)
    var sourceLID: UInt16 { CompletionEntry.sourceLID.get(entry) }

    @inline(__always)
    var pathBits: UInt8 { CompletionEntry.pathBits.get(entry) }

    @inline(__always)
    var pkeyIndex: UInt16 { UInt16(truncatingIfNeeded: CompletionEntry.pkeyIndex.get(entry)) }

    /// In ticks of the device's clock.
    @inline(__always)
    var timestamp: UInt64 { CompletionEntry.timestamp.get(entry) }

    /// Data that stands in the completion in place of the memory that it is for: where, and how much there can be.
    @inline(__always)
    var inlineData: (bytes: UnsafeRawPointer, capacity: UInt32)? {
        switch CompletionEntry.inlineData.get(entry) {
        case 0: nil
        case 1: (entry, 32)
        default: isLarge ? (entry - CompletionEntry.byteCount, 64) : (entry, 0)
        }
    }

    var vendorError: UInt32 { UInt32(CompletionEntry.vendorError.get(entry)) }

    /// What went wrong, as `MLX5_CQE_SYNDROME_…` says it.
    var errorStatus: ibv_wc_status {
        switch CompletionEntry.syndrome.get(entry) {
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
    /// What a request says that has succeeded, but for its id.
    @inline(__always)
    func writeSent(_ wc: UnsafeMutablePointer<ibv_wc>, noted opcode: UInt32) {
        wc.pointee.opcode = sendOpcode ?? ibv_wc_opcode(opcode)
        wc.pointee.byte_len = sendLength
        wc.pointee.wc_flags = sendFlags
        wc.pointee.qp_num = queuePair
    }

    /// What a message says that has arrived, but for the id of the request that it took.
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

    /// What an error says, but for the id.
    @inline(__always)
    func writeError(_ wc: UnsafeMutablePointer<ibv_wc>) {
        wc.pointee.status = errorStatus
        wc.pointee.vendor_err = vendorError
        wc.pointee.qp_num = queuePair
        wc.pointee.wc_flags = 0
    }
}
