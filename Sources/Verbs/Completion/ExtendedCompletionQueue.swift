import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

extension Context {
    /// Makes a completion queue for extended polling: ibv_create_cq_ex(3). `poll` works on it as well, so
    /// `ibv_cq_ex_to_cq` has no counterpart.
    ///
    /// - Parameters:
    ///   - capacity: The smallest number of completions to hold (`ibv_cq_init_attr_ex.cqe`).
    ///   - fields: The fields that `pollExtended` can read (`wc_flags`).
    ///   - channel: The completion channel of the queue's events. Without one the queue can only be polled.
    ///   - vector: The completion vector (`comp_vector`), below `completionVectorCount`.
    ///   - flags: Creation flags (`ibv_cq_init_attr_ex.flags`).
    ///   - parentDomain: A parent domain with the thread domain of the queue.
    /// - Throws: `EOPNOTSUPP` for a field or flag that the device does not support; otherwise the errors of
    ///   ibv_create_cq(3).
    public func makeCompletionQueue(
        capacity: Int, fields: CompletionQueue.Fields, channel: CompletionChannel? = nil, vector: Int = 0,
        flags: CompletionQueue.CreationFlags = [], parentDomain: ProtectionDomain? = nil
    ) throws(VerbsError) -> CompletionQueue {
        let create = try entry(table.create_cq_ex, destroyedBy: table.destroy_cq, .createCQEx, object("context"))
        var attributes = ibv_cq_init_attr_ex()
        attributes.cqe = UInt32(clamping: capacity)
        attributes.channel = channel?.raw
        attributes.comp_vector = UInt32(clamping: vector)
        attributes.wc_flags = fields.rawValue
        if !flags.isEmpty {
            attributes.comp_mask |= IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
            attributes.flags = flags.rawValue
        }
        if let parentDomain {
            attributes.comp_mask |= IBV_CQ_INIT_ATTR_MASK_PD.rawValue
            attributes.parent_domain = parentDomain.unsafeRaw
        }
        let advice = { [completionVectorCount] (errno: Errno) in
            CompletionQueue.creationAdvice(errno, capacity, vector, completionVectorCount)
        }
        let raw = try made(.createCQEx, object("context"), advice: advice) { create(unsafeRaw, &attributes) }
        return CompletionQueue(
            CompletionQueue.Owner(
                UnsafeMutableRawPointer(raw).assumingMemoryBound(to: ibv_cq.self), context: self, channel: channel,
                parentDomain: parentDomain, fields: fields))
    }
}

/// The current completion of `CompletionQueue.pollExtended` (`struct ibv_cq_ex`). A field that is not among the fields
/// of the queue is nil. It can be read even after its queue pair was destroyed.
@frozen public struct ExtendedCompletion: ~Copyable {
    @usableFromInline let raw: UnsafeMutablePointer<ibv_cq_ex>
    @usableFromInline let fields: CompletionQueue.Fields

    @inlinable init(_ raw: UnsafeMutablePointer<ibv_cq_ex>, fields: CompletionQueue.Fields) {
        self.raw = raw
        self.fields = fields
    }

    /// The work request's id (`ibv_cq_ex.wr_id`).
    @inlinable public var id: UInt64 { raw.pointee.wr_id }
    /// The status of the work request (`ibv_cq_ex.status`).
    @inlinable public var status: WorkCompletion.Status { WorkCompletion.Status(rawValue: raw.pointee.status.rawValue) }
    /// Whether `status` is `success`.
    @inlinable public var isSuccess: Bool { raw.pointee.status.rawValue == 0 }
    /// The operation that completed (`ibv_wc_read_opcode`). Undefined unless `status` is `success`.
    @inlinable public var opcode: WorkCompletion.Opcode {
        WorkCompletion.Opcode(rawValue: raw.pointee.read_opcode.unsafelyUnwrapped(raw).rawValue)
    }
    /// The vendor's error code (`ibv_wc_read_vendor_err`).
    @inlinable public var vendorError: UInt32 { raw.pointee.read_vendor_err.unsafelyUnwrapped(raw) }
    /// Flags that say which of the other fields are valid (`ibv_wc_read_wc_flags`).
    @inlinable public var flags: WorkCompletion.Flags {
        WorkCompletion.Flags(rawValue: raw.pointee.read_wc_flags.unsafelyUnwrapped(raw))
    }
    /// Number of bytes that were received, read or swapped (`ibv_wc_read_byte_len`).
    @inlinable public var byteCount: Int? {
        fields.contains(.byteCount) ? raw.pointee.read_byte_len.map { Int($0(raw)) } : nil
    }
    /// Immediate data in host byte order; nil when the message has none (`ibv_wc_read_imm_data`).
    @inlinable public var immediate: UInt32? {
        fields.contains(.immediate) && flags.contains(.immediate)
            ? raw.pointee.read_imm_data.map { UInt32(bigEndian: $0(raw)) } : nil
    }
    /// The rkey that the peer invalidated; nil when it invalidated none (`ibv_wc_read_invalidated_rkey`).
    @inlinable public var invalidatedKey: UInt32? {
        fields.contains(.immediate) && flags.contains(.invalidated) ? raw.pointee.read_imm_data.map { $0(raw) } : nil
    }
    /// The QPN of the local queue pair (`ibv_wc_read_qp_num`).
    @inlinable public var queuePairNumber: UInt32? {
        fields.contains(.queuePairNumber) ? raw.pointee.read_qp_num.map { $0(raw) } : nil
    }
    /// UD: the QPN of the sender (`ibv_wc_read_src_qp`).
    @inlinable public var sourceQueuePairNumber: UInt32? {
        fields.contains(.sourceQueuePair) ? raw.pointee.read_src_qp.map { $0(raw) } : nil
    }
    /// UD: the LID of the sender (`ibv_wc_read_slid`).
    @inlinable public var sourceLID: UInt32? {
        fields.contains(.sourceLID) ? raw.pointee.read_slid.map { $0(raw) } : nil
    }
    /// UD: the service level (`ibv_wc_read_sl`).
    @inlinable public var serviceLevel: UInt8? {
        fields.contains(.serviceLevel) ? raw.pointee.read_sl.map { $0(raw) } : nil
    }
    /// UD: the path bits of the destination LID (`ibv_wc_read_dlid_path_bits`).
    @inlinable public var pathBits: UInt8? {
        fields.contains(.pathBits) ? raw.pointee.read_dlid_path_bits.map { $0(raw) } : nil
    }
    /// The device's clock at the completion, in ticks of `DeviceAttributes.coreClock` (`ibv_wc_read_completion_ts`).
    @inlinable public var timestamp: UInt64? {
        fields.contains(.timestamp) ? raw.pointee.read_completion_ts.map { $0(raw) } : nil
    }
    /// The time of the completion in nanoseconds since 1970 (`ibv_wc_read_completion_wallclock_ns`).
    @inlinable public var wallClock: UInt64? {
        fields.contains(.wallClock) ? raw.pointee.read_completion_wallclock_ns.map { $0(raw) } : nil
    }
    /// The VLAN tag (`ibv_wc_read_cvlan`).
    @inlinable public var vlan: UInt16? {
        fields.contains(.vlan) ? raw.pointee.read_cvlan.map { $0(raw) } : nil
    }
    /// The tag of the flow that matched (`ibv_wc_read_flow_tag`).
    @inlinable public var flowTag: UInt32? {
        fields.contains(.flowTag) ? raw.pointee.read_flow_tag.map { $0(raw) } : nil
    }
}

extension CompletionQueue {
    /// Polls completions one by one and reads only the fields that `body` uses: ibv_start_poll, ibv_next_poll,
    /// ibv_end_poll of ibv_create_cq_ex(3). Never waits, allocates nothing.
    /// `body` may post, and modify, reset or destroy queue pairs, also the one of the current completion: that
    /// completion can be read until `body` returns, `body` is not called with it again, and completions of other queue
    /// pairs follow. It must not wait for another thread that changes a queue pair of this queue, because that waits
    /// until `pollExtended` returns.
    /// The C providers of libibverbs guarantee less (devices that `verbs providers` shows as served by `libibverbs`):
    /// libmlx5, libmlx4, libefa, libhns and libirdma hold a spin lock during the batch, and destroying or resetting a
    /// queue pair of this queue in `body` hangs. With them, make the queue `.singleThreaded`, or destroy and reset
    /// queue pairs after `pollExtended`.
    ///
    /// - Parameters:
    ///   - limit: Maximum number of completions.
    ///   - body: Called with each completion. It must not use the queue: polling it through `unsafeRaw` returns
    ///     `EBUSY`.
    /// - Returns: The number of completions.
    /// - Throws: `EOPNOTSUPP` when the queue was made without fields, `EIO` when it has failed.
    @inlinable @discardableResult
    public mutating func pollExtended(
        limit: Int = .max, _ body: (borrowing ExtendedCompletion) -> Void
    ) throws(VerbsError) -> Int {
        guard limit > 0 else { return 0 }
        let fields = try extendedFields()
        let extended = UnsafeMutableRawPointer(raw).assumingMemoryBound(to: ibv_cq_ex.self)
        var attributes = ibv_poll_cq_attr()
        var code = extended.pointee.start_poll.unsafelyUnwrapped(extended, &attributes)
        if code == ENOENT { return 0 }
        if code != 0 { throw failure(.startPoll, code) }
        var count = 0
        repeat {
            body(ExtendedCompletion(extended, fields: fields))
            count += 1
            if count == limit { break }
            code = extended.pointee.next_poll.unsafelyUnwrapped(extended)
        } while code == 0
        extended.pointee.end_poll.unsafelyUnwrapped(extended)
        if code != 0, code != ENOENT { throw failure(.startPoll, code) }
        return count
    }

    @usableFromInline func extendedFields() throws(VerbsError) -> Fields {
        guard let fields = owner.fields else {
            throw VerbsError(
                .startPoll, errno: .notSupported, object: owner.object,
                hint: "make it with the fields that are to be read")
        }
        return fields
    }
}
