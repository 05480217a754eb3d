import CIBVerbs
import CProviderABI
import SystemPackage

/// Send work requests that are being built by the extended interface (ibv_wr_post(3)), within
/// `QueuePair.postExtended`. The provider writes each straight into its queue.
@frozen public struct ExtendedRequests: ~Copyable {
    @usableFromInline let raw: UnsafeMutablePointer<ibv_qp_ex>
    @usableFromInline let operations: QueuePair.ExtendedOperations

    @inlinable init(_ raw: UnsafeMutablePointer<ibv_qp_ex>, operations: QueuePair.ExtendedOperations) {
        self.raw = raw
        self.operations = operations
    }

    /// Adds a request with one slice.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slice: its data, or where the data of a read or atomic goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `EOPNOTSUPP` for an operation that the queue pair was not made for.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try begin(operation, id, flags.rawValue)
        raw.pointee.wr_set_sge.unsafelyUnwrapped(raw, slice.raw.lkey, slice.raw.addr, slice.raw.length)
    }

    /// Adds a request that gathers several slices, or has none.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slices: its data, piece by piece.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, slices: Span<MemoryRegion.Slice>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try begin(operation, id, flags.rawValue)
        _ = slices.withUnsafeElements { elements, count in
            raw.pointee.wr_set_sge_list.unsafelyUnwrapped(raw, Int(count), elements)
            return 0
        }
    }

    /// Adds a request whose data is copied into it. An atomic write takes 8 bytes.
    ///
    /// - Parameters:
    ///   - operation: what it does: a send or write.
    ///   - bytes: its data, at most `capabilities.inlineBytes`.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        if operation.opcode == .atomicWrite { return try appendAtomicWrite(operation, bytes, id, flags) }
        try begin(operation, id, flags.rawValue | SendFlags.inlineBit)
        setInline(bytes)
    }

    /// Adds a datagram with one slice.
    ///
    /// - Parameters:
    ///   - operation: a send.
    ///   - slice: its data.
    ///   - destination: where it goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try append(operation, slice, id: id, flags: flags)
        raw.pointee.wr_set_ud_addr.unsafelyUnwrapped(
            raw, destination.raw, destination.queuePairNumber, destination.queueKey)
    }

    /// Adds a packet that the device cuts into segments of TCP (IBV_WR_TSO).
    ///
    /// - Parameters:
    ///   - header: the headers of each segment.
    ///   - segment: most bytes of a segment.
    ///   - slices: the payload.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable
    public mutating func appendSegmented(
        header: RawSpan, segment: UInt16, slices: Span<MemoryRegion.Slice>, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        try require(.tso)
        raw.pointee.wr_id = id
        raw.pointee.wr_flags = flags.rawValue
        header.withUnsafeBytes { bytes in
            raw.pointee.wr_send_tso.unsafelyUnwrapped(
                raw, UnsafeMutableRawPointer(mutating: bytes.baseAddress), UInt16(clamping: bytes.count), segment)
        }
        _ = slices.withUnsafeElements { elements, count in
            raw.pointee.wr_set_sge_list.unsafelyUnwrapped(raw, Int(count), elements)
            return 0
        }
    }

    @inlinable
    mutating func appendAtomicWrite(
        _ operation: SendOperation, _ bytes: RawSpan, _ id: UInt64, _ flags: SendFlags
    ) throws(VerbsError) {
        try require(.atomicWrite)
        guard bytes.byteCount == 8 else { throw refusal(.invalidArgument, "an atomic write takes 8 bytes") }
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
            // Not const in verbs.h; it is only read.
            raw.pointee.wr_set_inline_data.unsafelyUnwrapped(
                raw, UnsafeMutableRawPointer(mutating: buffer.baseAddress), buffer.count)
        }
    }

    /// Begins a request with the function of its operation.
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
        case .localInvalidate:
            try require(.localInvalidate)
            raw.pointee.wr_local_inv.unsafelyUnwrapped(raw, operation.immediate)
        default:
            throw refusal(.notSupported, "\(operation.opcode) cannot be built like this")
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
    /// Builds send work requests in the provider's queue and posts them at once: ibv_wr_start, ibv_wr_complete of
    /// ibv_wr_post(3). When `build` throws, none is posted.
    ///
    /// - Parameter build: adds the requests. It must not wait.
    /// - Throws: what `build` throws; `ENOMEM` when the queue is too full for all, `EINVAL` as a single post;
    ///   `EOPNOTSUPP` when the queue pair was made without extended operations. None is posted then.
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
            case .noMemory: .sendQueueFull(depth: capabilities.sendRequests)
            case .invalidArgument where [.reset, .initialized, .readyToReceive].contains(lastKnownState):
                .cannotSend(in: lastKnownState)
            default: .general(errno)
            }
        return VerbsError(.completeWorkRequests, errno, owner.object, advice)
    }
}
