import CIBVerbs
import CProviderABI
import SystemPackage

/// Send work requests that `QueuePair.postExtended` builds with the `ibv_wr_*` functions of verbs.h (ibv_wr_post(3)).
/// The provider writes each one directly into its send queue.
///
/// Appending calls the function of the operation, such as `ibv_wr_send`, then `ibv_wr_set_sge`, `ibv_wr_set_sge_list`
/// or `ibv_wr_set_inline_data`, and on XRC `ibv_wr_set_xrc_srqn`.
@frozen public struct ExtendedRequests: ~Copyable {
    @usableFromInline let raw: UnsafeMutablePointer<ibv_qp_ex>
    @usableFromInline let operations: QueuePair.ExtendedOperations

    @inlinable init(_ raw: UnsafeMutablePointer<ibv_qp_ex>, operations: QueuePair.ExtendedOperations) {
        self.raw = raw
        self.operations = operations
    }

    /// Appends a request with one SGE.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sge: The data, or the buffer for the result of a read or atomic (`ibv_send_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `EOPNOTSUPP` for an operation that is not in the queue pair's `extendedOperations`.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, _ sge: ScatterGatherElement, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try begin(operation, id, flags.rawValue)
        raw.pointee.wr_set_sge.unsafelyUnwrapped(raw, sge.raw.lkey, sge.raw.addr, sge.raw.length)
    }

    /// Appends a request with any number of SGEs.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sgList: SGEs of the data, in order (`ibv_send_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, sgList: Span<ScatterGatherElement>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try begin(operation, id, flags.rawValue)
        _ = sgList.withUnsafeSGEs { sges, count in
            raw.pointee.wr_set_sge_list.unsafelyUnwrapped(raw, Int(count), sges)
            return 0
        }
    }

    /// Appends a request without data: a flush, a local invalidation or an empty message.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `EOPNOTSUPP` for an operation that is not in the queue pair's `extendedOperations`.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try begin(operation, id, flags.rawValue)
    }

    /// Appends a request with inline data (`ibv_wr_set_inline_data`). An atomic write has 8 bytes
    /// (`ibv_wr_atomic_write`).
    ///
    /// - Parameters:
    ///   - operation: A send or an RDMA write.
    ///   - bytes: The data, at most `capabilities.maxInlineData` bytes.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        if operation.opcode == .atomicWrite { return try appendAtomicWrite(operation, bytes, id, flags) }
        try begin(operation, id, flags.rawValue | SendFlags.inlineBit)
        setInline(bytes)
    }

    /// Appends a datagram with one SGE (`ibv_wr_set_ud_addr`).
    ///
    /// - Parameters:
    ///   - operation: A send, with or without immediate data.
    ///   - sge: The data (`ibv_send_wr.sg_list`).
    ///   - destination: Address handle, QPN and Q_Key of the receiver (`ibv_send_wr.wr.ud`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, _ sge: ScatterGatherElement, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try append(operation, sge, id: id, flags: flags)
        raw.pointee.wr_set_ud_addr.unsafelyUnwrapped(
            raw, destination.raw, destination.queuePairNumber, destination.qkey)
    }

    /// Appends a packet that the device splits into TCP segments (`ibv_wr_send_tso`, `IBV_WR_TSO`).
    ///
    /// This call has run only against a fake provider.
    ///
    /// - Parameters:
    ///   - header: The headers of each segment, at most `CreationOptions.maxTSOHeader` bytes (`ibv_send_wr.tso.hdr`,
    ///     `hdr_sz`).
    ///   - segment: Largest number of payload bytes of a segment (`mss`).
    ///   - sgList: SGEs of the payload.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable
    public mutating func appendSegmented(
        header: RawSpan, segment: UInt16, sgList: Span<ScatterGatherElement>, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try require(.tso)
        raw.pointee.wr_id = id
        raw.pointee.wr_flags = flags.rawValue
        header.withUnsafeBytes { bytes in
            raw.pointee.wr_send_tso.unsafelyUnwrapped(
                raw, UnsafeMutableRawPointer(mutating: bytes.baseAddress), UInt16(clamping: bytes.count), segment)
        }
        _ = sgList.withUnsafeSGEs { sges, count in
            raw.pointee.wr_set_sge_list.unsafelyUnwrapped(raw, Int(count), sges)
            return 0
        }
    }

    @inlinable
    mutating func appendAtomicWrite(
        _ operation: SendOperation, _ bytes: RawSpan, _ id: UInt64, _ flags: SendFlags
    ) throws(VerbsError) {
        try require(.atomicWrite)
        guard bytes.byteCount == 8 else { throw refusal(.invalidArgument, "an atomic write has 8 bytes") }
        raw.pointee.wr_id = id
        raw.pointee.wr_flags = flags.rawValue
        bytes.withUnsafeBytes {
            raw.pointee.wr_atomic_write.unsafelyUnwrapped(
                raw, UInt32(truncatingIfNeeded: operation.word1), operation.word0, $0.baseAddress)
        }
    }

    @inlinable
    func setInline(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { buffer in
            // Not const in verbs.h, but only read.
            raw.pointee.wr_set_inline_data.unsafelyUnwrapped(
                raw, UnsafeMutableRawPointer(mutating: buffer.baseAddress), buffer.count)
        }
    }

    /// Calls the `ibv_wr_*` function of the operation.
    @inlinable @inline(__always)
    mutating func begin(_ operation: SendOperation, _ id: UInt64, _ flags: UInt32) throws(VerbsError) {
        raw.pointee.wr_id = id
        raw.pointee.wr_flags = flags
        let key = UInt32(truncatingIfNeeded: operation.word1)
        switch operation.opcode {
        case .send:
            try require(.send)
            raw.pointee.wr_send.unsafelyUnwrapped(raw)
        case .sendWithImmediate:
            try require(.sendWithImmediate)
            raw.pointee.wr_send_imm.unsafelyUnwrapped(raw, operation.immediate)
        case .sendWithInvalidate:
            try require(.sendWithInvalidate)
            raw.pointee.wr_send_inv.unsafelyUnwrapped(raw, operation.immediate)
        case .write:
            try require(.write)
            raw.pointee.wr_rdma_write.unsafelyUnwrapped(raw, key, operation.word0)
        case .writeWithImmediate:
            try require(.writeWithImmediate)
            raw.pointee.wr_rdma_write_imm.unsafelyUnwrapped(raw, key, operation.word0, operation.immediate)
        case .read:
            try require(.read)
            raw.pointee.wr_rdma_read.unsafelyUnwrapped(raw, key, operation.word0)
        default:
            try beginRare(operation)
        }
        if operation.remoteSRQ != 0 { raw.pointee.wr_set_xrc_srqn.unsafelyUnwrapped(raw, operation.remoteSRQ) }
    }

    @usableFromInline
    mutating func beginRare(_ operation: SendOperation) throws(VerbsError) {
        let key = UInt32(truncatingIfNeeded: operation.word3)
        switch operation.opcode {
        case .compareAndSwap:
            try require(.compareAndSwap)
            raw.pointee.wr_atomic_cmp_swp.unsafelyUnwrapped(
                raw, key, operation.word0, operation.word1, operation.word2)
        case .fetchAndAdd:
            try require(.fetchAndAdd)
            raw.pointee.wr_atomic_fetch_add.unsafelyUnwrapped(raw, key, operation.word0, operation.word1)
        case .flush:
            try require(.flush)
            rdma_wr_flush_place(raw).pointee.unsafelyUnwrapped(
                raw, UInt32(truncatingIfNeeded: operation.word1), operation.word0, Int(clamping: operation.word2),
                UInt8(truncatingIfNeeded: operation.word3), UInt8(truncatingIfNeeded: operation.word3 >> 8))
        case .localInvalidate:
            try require(.localInvalidate)
            raw.pointee.wr_local_inv.unsafelyUnwrapped(raw, operation.immediate)
        default:
            throw refusal(.notSupported, "\(operation.opcode) has no function in ibv_qp_ex: use postSend")
        }
    }

    @inlinable @inline(__always)
    func require(_ operation: QueuePair.ExtendedOperations) throws(VerbsError) {
        guard operations.contains(operation) else { throw missing(operation) }
    }

    @usableFromInline @inline(never)
    func missing(_ operation: QueuePair.ExtendedOperations) -> VerbsError {
        refusal(
            .notSupported, "make the queue pair with CreationOptions.extendedOperations that contain \(operation)")
    }

    @usableFromInline @inline(never)
    func refusal(_ errno: Errno, _ hint: String) -> VerbsError {
        let object = VerbsObject("queue pair", number: UInt64(raw.pointee.qp_base.qp_num), device: "")
        return VerbsError(.completeWorkRequests, errno: errno, object: object, hint: hint)
    }
}

extension QueuePair {
    /// Builds send work requests in the provider's send queue and posts them together: `ibv_wr_start`,
    /// `ibv_wr_complete` and `ibv_wr_abort` of ibv_wr_post(3).
    ///
    /// - Parameter build: Appends the requests. It runs between `ibv_wr_start` and `ibv_wr_complete`, with the send
    ///   queue locked, so it must not wait.
    /// - Throws: The error of `build`; `ENOMEM` when the send queue has no room for all requests; `EINVAL` as
    ///   `postSend`; `EOPNOTSUPP` when the queue pair was made without `extendedOperations`. No request is posted then.
    @inlinable
    public mutating func postExtended(
        _ build: (inout ExtendedRequests) throws(VerbsError) -> Void
    ) throws(VerbsError) {
        let extended = try extendedForm()
        extended.pointee.wr_start.unsafelyUnwrapped(extended)
        var requests = ExtendedRequests(extended, operations: extendedOperations)
        do throws(VerbsError) {
            try build(&requests)
        } catch {
            extended.pointee.wr_abort.unsafelyUnwrapped(extended)
            throw error
        }
        let code = extended.pointee.wr_complete.unsafelyUnwrapped(extended)
        if code != 0 { throw completionFailure(code) }
    }

    @usableFromInline var extendedOperations: ExtendedOperations { owner.extendedOperations }

    @usableFromInline func extendedForm() throws(VerbsError) -> UnsafeMutablePointer<ibv_qp_ex> {
        guard let extended = owner.extended else {
            throw VerbsError(
                .extendedQP, errno: .notSupported, object: owner.object,
                hint: "make the queue pair with CreationOptions.extendedOperations")
        }
        return extended
    }

    @usableFromInline @inline(never)
    func completionFailure(_ code: Int32) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice: Advice =
            switch errno {
            case .noMemory: .sendQueueFull(depth: capabilities.maxSendWR)
            case .invalidArgument where [.reset, .initialized, .readyToReceive].contains(lastKnownState):
                .cannotSend(in: lastKnownState)
            default: .general(errno)
            }
        return VerbsError(.completeWorkRequests, errno, owner.object, advice)
    }
}
