import CIBVerbs
import SystemPackage

/// How one work request ended: what verbs calls a work completion (ibv_poll_cq(3)).
///
/// Laid out as `struct ibv_wc`, so that polling writes straight into it. Unless the status is success only `id`,
/// `status`, `queuePairNumber` and `vendorError` mean anything. Of a completed send, only `id`, `opcode` and
/// `queuePairNumber` do; of a completed read or atomic `byteCount` as well.
@frozen public struct WorkCompletion: @unchecked Sendable {
    // Unchecked: it holds numbers only.
    @usableFromInline var raw: ibv_wc

    /// A completion of all zeroes: something for polling to write over.
    @inlinable public init() { raw = ibv_wc() }

    /// The struct of verbs.h.
    @inlinable public init(_ raw: ibv_wc) { self.raw = raw }

    /// The id that the work request was posted with.
    @inlinable public var id: UInt64 { raw.wr_id }
    /// How it ended.
    @inlinable public var status: Status { Status(rawValue: raw.status.rawValue) }
    /// Whether it ended well.
    @inlinable public var isSuccess: Bool { raw.status.rawValue == 0 }
    /// What it did.
    @inlinable public var opcode: Opcode { Opcode(rawValue: raw.opcode.rawValue) }
    /// The device's own code for what went wrong.
    @inlinable public var vendorError: UInt32 { raw.vendor_err }
    /// Number of bytes that were received, read or swapped. On UD it counts the 40 bytes before the data.
    @inlinable public var byteCount: Int { Int(raw.byte_len) }
    /// Which of the other fields are valid.
    @inlinable public var flags: Flags { Flags(rawValue: raw.wc_flags) }
    /// The peer's 32 bits beside the data, in host byte order; nil when it sent none.
    @inlinable public var immediate: UInt32? {
        flags.contains(.immediate) ? UInt32(bigEndian: raw.imm_data) : nil
    }
    /// The key that the peer invalidated; nil when it did not.
    @inlinable public var invalidatedKey: UInt32? { flags.contains(.invalidated) ? raw.invalidated_rkey : nil }
    /// Number of the queue pair here.
    @inlinable public var queuePairNumber: UInt32 { raw.qp_num }
    /// UD: number of the queue pair that sent it.
    @inlinable public var sourceQueuePairNumber: UInt32 { raw.src_qp }
    /// UD, GSI: index of the P_Key of the packet.
    @inlinable public var pkeyIndex: UInt16 { raw.pkey_index }
    /// UD: the LID that it came from.
    @inlinable public var sourceLID: UInt16 { raw.slid }
    /// UD: its service level.
    @inlinable public var serviceLevel: UInt8 { raw.sl }
    /// UD: the path bits of the LID that it came to.
    @inlinable public var pathBits: UInt8 { raw.dlid_path_bits }

    /// Throws unless it ended well; the error carries the status.
    @inlinable public func check() throws(VerbsError) {
        if !isSuccess { throw failure }
    }

    /// The error for what did not end well.
    @usableFromInline var failure: VerbsError {
        VerbsError(
            .pollCQ, .ioError, VerbsObject("queue pair", number: UInt64(queuePairNumber), device: ""),
            .completion(status), status: status)
    }
}

extension WorkCompletion: CustomStringConvertible {
    /// Such as `SEND id 7: SUCCESS`.
    public var description: String {
        isSuccess
            ? "\(opcode) id \(id): \(status)"
            : "id \(id) of queue pair 0x\(String(queuePairNumber, radix: 16)): \(status), vendor error \(vendorError)"
    }
}
