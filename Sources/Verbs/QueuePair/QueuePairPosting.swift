import CIBVerbs
import CProviderABI
import CProviderCore
import SystemPackage

// Posting passes a work request to the device: ibv_post_send(3). It allocates nothing and never waits. It reports only
// the errors that are known immediately; all others arrive as the status of a completion.

extension QueuePair {
    /// Posts one send work request with one SGE: ibv_post_send(3).
    ///
    /// The memory must stay registered, and the data of a send or write unchanged, until the request completes.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sge: The data, or the buffer for the result of a read or atomic (`ibv_send_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `ENOMEM` when the send queue is full; `EINVAL` when the queue pair's state or type does not allow the
    ///   operation, or for more SGEs than `maxSendSGE`; `EOPNOTSUPP` for an operation that the device does not support.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, _ sge: ScatterGatherElement, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        var raw = sge.raw
        let code = unsafePost(operation, &raw, 1, id, flags.rawValue)
        if code != 0 { throw sendFailure(operation.opcodeRaw, sgeCount: 1, code) }
    }

    /// Posts one send work request with any number of SGEs: ibv_post_send(3).
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sgList: SGEs of the data, in order (`ibv_send_wr.sg_list`). The list may be reused immediately.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, sgList: Span<ScatterGatherElement>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = sgList.withUnsafeSGEs { sges, count in
            unsafePost(operation, sges, count, id, flags.rawValue)
        }
        if code != 0 { throw sendFailure(operation.opcodeRaw, sgeCount: sgList.count, code) }
    }

    /// Posts one send work request without data, for an empty message or an invalidation: ibv_post_send(3).
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = unsafePost(operation, nil, 0, id, flags.rawValue)
        if code != 0 { throw sendFailure(operation.opcodeRaw, sgeCount: 0, code) }
    }

    /// Posts one send or RDMA write with inline data (`IBV_SEND_INLINE`): ibv_post_send(3).
    ///
    /// The data is copied before this call returns. It need not be registered and may change afterwards.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - bytes: The data, at most `capabilities.maxInlineData` bytes.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE; `EINVAL` or `ENOMEM` for more bytes than `maxInlineData`.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = unsafePost(operation, inline: bytes, id, flags)
        if code != 0 { throw inlineFailure(operation.opcodeRaw, bytes.byteCount, code) }
    }

    /// Posts one datagram with one SGE: ibv_post_send(3).
    ///
    /// - Parameters:
    ///   - operation: A send, with or without immediate data.
    ///   - sge: The data, at most one path MTU (`ibv_send_wr.sg_list`).
    ///   - destination: Address handle, QPN and Q_Key of the receiver (`ibv_send_wr.wr.ud`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, _ sge: ScatterGatherElement, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        var raw = sge.raw
        let code = withExtendedLifetime(destination) {
            unsafePost(destination.addressed(operation), &raw, 1, id, flags.rawValue)
        }
        if code != 0 { throw sendFailure(operation.opcodeRaw, sgeCount: 1, code) }
    }

    /// Posts one datagram with inline data (`IBV_SEND_INLINE`): ibv_post_send(3).
    ///
    /// - Parameters:
    ///   - operation: A send, with or without immediate data.
    ///   - bytes: The data, at most `capabilities.maxInlineData` bytes.
    ///   - destination: Address handle, QPN and Q_Key of the receiver (`ibv_send_wr.wr.ud`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postSend(
        _ operation: SendOperation, inline bytes: RawSpan, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = withExtendedLifetime(destination) {
            unsafePost(destination.addressed(operation), inline: bytes, id, flags)
        }
        if code != 0 { throw inlineFailure(operation.opcodeRaw, bytes.byteCount, code) }
    }

    /// Calls the provider's `post_send`. Returns 0 or an errno value.
    @inlinable @inline(__always)
    func unsafePost(
        _ operation: SendOperation, _ sges: UnsafePointer<ibv_sge>?, _ count: Int32, _ id: UInt64, _ flags: UInt32
    ) -> Int32 {
        rdma_post_one_send(
            raw, id, ibv_wr_opcode(rawValue: operation.opcodeRaw), operation.immediate, operation.word0,
            operation.word1, operation.word2, operation.word3, operation.remoteSRQ, flags, sges, count)
    }

    /// Calls the provider's `post_send` with inline data, which it copies before it returns.
    @inlinable @inline(__always)
    func unsafePost(_ operation: SendOperation, inline bytes: RawSpan, _ id: UInt64, _ flags: SendFlags) -> Int32 {
        bytes.withUnsafeBytes { buffer in
            var raw = ibv_sge(
                addr: UInt64(UInt(bitPattern: buffer.baseAddress)), length: UInt32(clamping: buffer.count), lkey: 0)
            return unsafePost(operation, &raw, 1, id, flags.rawValue | SendFlags.inlineBit)
        }
    }
}

extension SendFlags {
    /// `IBV_SEND_INLINE`. Not public: with it, the address of an SGE is one of this process, not one of a region.
    @inlinable static var inlineBit: UInt32 { 1 << 3 }
}

extension Span<ScatterGatherElement> {
    /// Passes the SGEs as the array of `struct ibv_sge` that verbs.h takes.
    @inlinable @inline(__always)
    func withUnsafeSGEs(_ body: (UnsafePointer<ibv_sge>?, Int32) -> Int32) -> Int32 {
        withUnsafeBytes { bytes in
            // ScatterGatherElement has the layout of its only field, an ibv_sge.
            body(bytes.baseAddress?.assumingMemoryBound(to: ibv_sge.self), Int32(clamping: count))
        }
    }
}
