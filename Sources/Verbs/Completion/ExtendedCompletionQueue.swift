import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

extension Context {
    /// Makes a completion queue for extended polling: ibv_create_cq_ex(3). It can be polled either way.
    ///
    /// - Parameters:
    ///   - capacity: how many completions it must hold.
    ///   - fields: what `pollExtended` can read of each.
    ///   - channel: where its events go; without one it can only be polled.
    ///   - vector: completion vector, below `completionVectorCount`.
    ///   - flags: special treatment.
    ///   - parentDomain: a parent domain whose thread domain it belongs to.
    /// - Throws: `EOPNOTSUPP` for a field or flag that the device lacks, else as the plain kind.
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

/// One completion, while `CompletionQueue.pollExtended` looks at it. What the queue was not made to read is nil.
@frozen public struct ExtendedCompletion: ~Copyable {
    @usableFromInline let raw: UnsafeMutablePointer<ibv_cq_ex>
    @usableFromInline let fields: CompletionQueue.Fields

    @inlinable init(_ raw: UnsafeMutablePointer<ibv_cq_ex>, fields: CompletionQueue.Fields) {
        self.raw = raw
        self.fields = fields
    }

    /// The id that the work request was posted with.
    @inlinable public var id: UInt64 { raw.pointee.wr_id }
    /// How it ended.
    @inlinable public var status: WorkCompletion.Status { WorkCompletion.Status(rawValue: raw.pointee.status.rawValue) }
    /// Whether it ended well.
    @inlinable public var isSuccess: Bool { raw.pointee.status.rawValue == 0 }
    /// What it did.
    @inlinable public var opcode: WorkCompletion.Opcode {
        WorkCompletion.Opcode(rawValue: raw.pointee.read_opcode.unsafelyUnwrapped(raw).rawValue)
    }
    /// The device's own code for what went wrong.
    @inlinable public var vendorError: UInt32 { raw.pointee.read_vendor_err.unsafelyUnwrapped(raw) }
    /// Which of the other fields are valid.
    @inlinable public var flags: WorkCompletion.Flags {
        WorkCompletion.Flags(rawValue: raw.pointee.read_wc_flags.unsafelyUnwrapped(raw))
    }
    /// Number of bytes that were received, read or swapped.
    @inlinable public var byteCount: Int? {
        fields.contains(.byteCount) ? raw.pointee.read_byte_len.map { Int($0(raw)) } : nil
    }
    /// The peer's 32 bits beside the data, in host byte order; nil when it sent none.
    @inlinable public var immediate: UInt32? {
        fields.contains(.immediate) && flags.contains(.immediate)
            ? raw.pointee.read_imm_data.map { UInt32(bigEndian: $0(raw)) } : nil
    }
    /// The key that the peer invalidated; nil when it did not.
    @inlinable public var invalidatedKey: UInt32? {
        fields.contains(.immediate) && flags.contains(.invalidated) ? raw.pointee.read_imm_data.map { $0(raw) } : nil
    }
    /// Number of the queue pair here.
    @inlinable public var queuePairNumber: UInt32? {
        fields.contains(.queuePairNumber) ? raw.pointee.read_qp_num.map { $0(raw) } : nil
    }
    /// UD: number of the queue pair that sent it.
    @inlinable public var sourceQueuePairNumber: UInt32? {
        fields.contains(.sourceQueuePair) ? raw.pointee.read_src_qp.map { $0(raw) } : nil
    }
    /// UD: the LID that it came from.
    @inlinable public var sourceLID: UInt32? {
        fields.contains(.sourceLID) ? raw.pointee.read_slid.map { $0(raw) } : nil
    }
    /// UD: its service level.
    @inlinable public var serviceLevel: UInt8? {
        fields.contains(.serviceLevel) ? raw.pointee.read_sl.map { $0(raw) } : nil
    }
    /// UD: the path bits of the LID that it came to.
    @inlinable public var pathBits: UInt8? {
        fields.contains(.pathBits) ? raw.pointee.read_dlid_path_bits.map { $0(raw) } : nil
    }
    /// The device's clock when it completed: ticks of `DeviceAttributes.coreClock`.
    @inlinable public var timestamp: UInt64? {
        fields.contains(.timestamp) ? raw.pointee.read_completion_ts.map { $0(raw) } : nil
    }
    /// Time of day when it completed, in nanoseconds since 1970.
    @inlinable public var wallClock: UInt64? {
        fields.contains(.wallClock) ? raw.pointee.read_completion_wallclock_ns.map { $0(raw) } : nil
    }
    /// VLAN tag.
    @inlinable public var vlan: UInt16? {
        fields.contains(.vlan) ? raw.pointee.read_cvlan.map { $0(raw) } : nil
    }
    /// Tag of the flow that took it.
    @inlinable public var flowTag: UInt32? {
        fields.contains(.flowTag) ? raw.pointee.read_flow_tag.map { $0(raw) } : nil
    }
}

extension CompletionQueue {
    /// Looks at completions one by one, reading only what is asked: ibv_start_poll, ibv_next_poll, ibv_end_poll of
    /// ibv_create_cq_ex(3). Never waits, allocates nothing.
    ///
    /// - Parameters:
    ///   - limit: most completions.
    ///   - body: looks at one. It must not use the queue.
    /// - Returns: how many there were.
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
