import CIBVerbs
import CProviderABI
import SystemPackage

/// A work completion: the result of one work request (`struct ibv_wc`, ibv_poll_cq(3)).
///
/// It has the layout of `struct ibv_wc`, so polling writes directly into it. Unless the status is `success`, only `id`,
/// `status`, `queuePairNumber` and `vendorError` are valid. Of a completed send, only `id`, `status`, `opcode` and
/// `queuePairNumber` are valid; of a completed read or atomic also `byteCount`.
@frozen public struct WorkCompletion: @unchecked Sendable {
    // Unchecked: it holds numbers only.
    @usableFromInline var raw: ibv_wc

    /// A completion of all zeroes, for polling to overwrite.
    @inlinable public init() { raw = ibv_wc() }

    /// The struct of verbs.h.
    @inlinable public init(_ raw: ibv_wc) { self.raw = raw }

    /// The id that the work request was posted with (`ibv_wc.wr_id`).
    @inlinable public var id: UInt64 { raw.wr_id }
    /// The status of the work request (`ibv_wc.status`).
    @inlinable public var status: Status { Status(rawValue: raw.status.rawValue) }
    /// Whether `status` is `success`.
    @inlinable public var isSuccess: Bool { raw.status.rawValue == 0 }
    /// The operation that completed (`ibv_wc.opcode`). Undefined unless `status` is `success`.
    @inlinable public var opcode: Opcode { Opcode(rawValue: raw.opcode.rawValue) }
    /// The vendor's error code (`ibv_wc.vendor_err`).
    @inlinable public var vendorError: UInt32 { raw.vendor_err }
    /// Number of bytes that were received, read or swapped (`ibv_wc.byte_len`). On UD it includes the 40 bytes of the
    /// GRH.
    @inlinable public var byteCount: Int { Int(raw.byte_len) }
    /// Flags that say which of the other fields are valid (`ibv_wc.wc_flags`).
    @inlinable public var flags: Flags { Flags(rawValue: raw.wc_flags) }
    /// Immediate data in host byte order; nil when the message has none (`ibv_wc.imm_data`).
    @inlinable public var immediate: UInt32? {
        flags.contains(.immediate) ? UInt32(bigEndian: raw.imm_data) : nil
    }
    /// The rkey that the peer invalidated; nil when it invalidated none (`ibv_wc.invalidated_rkey`).
    @inlinable public var invalidatedKey: UInt32? { flags.contains(.invalidated) ? raw.invalidated_rkey : nil }
    /// The QPN of the local queue pair (`ibv_wc.qp_num`).
    @inlinable public var queuePairNumber: UInt32 { raw.qp_num }
    /// UD: the QPN of the sender (`ibv_wc.src_qp`).
    @inlinable public var sourceQueuePairNumber: UInt32 { raw.src_qp }
    /// GSI (QP1): index of the P_Key of the packet (`ibv_wc.pkey_index`).
    @inlinable public var pkeyIndex: UInt16 { raw.pkey_index }
    /// UD: the LID of the sender (`ibv_wc.slid`).
    @inlinable public var sourceLID: UInt16 { raw.slid }
    /// UD: the service level of the packet (`ibv_wc.sl`). On RoCE v2 mlx5 and soft report the network header instead: 10
    /// for IPv4, 9 for IPv6.
    @inlinable public var serviceLevel: UInt8 { raw.sl }
    /// UD: the path bits of the destination LID (`ibv_wc.dlid_path_bits`).
    @inlinable public var pathBits: UInt8 { raw.dlid_path_bits }

    /// Throws unless `status` is `success`; the error has the status.
    @inlinable public func check() throws(VerbsError) {
        if !isSuccess { throw failure }
    }

    /// The error for a completion that failed.
    @usableFromInline var failure: VerbsError {
        VerbsError(
            .pollCQ, .ioError, VerbsObject("queue pair", number: UInt64(queuePairNumber), device: ""),
            .completion(status), status: status)
    }
}

extension WorkCompletion: CustomStringConvertible {
    /// Text such as `SEND id 7: SUCCESS`.
    public var description: String {
        isSuccess
            ? "\(opcode) id \(id): \(status)"
            : "id \(id) of queue pair 0x\(String(queuePairNumber, radix: 16)): \(status), vendor error \(vendorError)"
    }
}
