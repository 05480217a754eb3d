import CIBVerbs
import CProviderABI
import SystemPackage

// Posting hands a work request to the device: ibv_post_send(3). It allocates nothing and never waits. What it says about a request is only what can be known at once; the rest comes as a completion.

extension QueuePair {
    /// Posts one send work request with one slice.
    ///
    /// The slice must stay registered, and unchanged unless the operation writes it, until the request completes.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slice: its data, or where the data of a read or atomic goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `ENOMEM` when the queue is full, `EINVAL` for a state, an operation or a number of slices that
    ///   this queue pair does not allow, `EOPNOTSUPP` for an operation that the device lacks.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        var element = slice.raw
        let code = unsafePost(operation, &element, 1, id, flags.rawValue)
        if code != 0 { throw sendFailure(operation.opcodeRaw, slices: 1, code) }
    }

    /// Posts one send work request that gathers several slices, or has none.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slices: its data, piece by piece; the list itself may be reused at once.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, slices: Span<MemoryRegion.Slice>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = slices.withUnsafeElements { elements, count in
            unsafePost(operation, elements, count, id, flags.rawValue)
        }
        if code != 0 { throw sendFailure(operation.opcodeRaw, slices: slices.count, code) }
    }

    /// Posts one send work request without data: an empty message, or an invalidation.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = unsafePost(operation, nil, 0, id, flags.rawValue)
        if code != 0 { throw sendFailure(operation.opcodeRaw, slices: 0, code) }
    }

    /// Posts one send work request whose data is copied into the request: it need not be registered, and may
    /// change at once. Sends and writes only.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - bytes: its data, at most `capabilities.inlineBytes`.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as with one slice; `EINVAL` or `ENOMEM` for more bytes than it was made for.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = unsafePost(operation, inline: bytes, id, flags)
        if code != 0 { throw inlineFailure(operation.opcodeRaw, bytes.byteCount, code) }
    }

    /// Posts one datagram with one slice.
    ///
    /// - Parameters:
    ///   - operation: a send.
    ///   - slice: its data, at most one MTU.
    ///   - destination: where it goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as a send over a connection.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        var element = slice.raw
        let code = withExtendedLifetime(destination) {
            unsafePost(destination.addressed(operation), &element, 1, id, flags.rawValue)
        }
        if code != 0 { throw sendFailure(operation.opcodeRaw, slices: 1, code) }
    }

    /// Posts one datagram whose data is copied into the request.
    ///
    /// - Parameters:
    ///   - operation: a send.
    ///   - bytes: its data, at most `capabilities.inlineBytes`.
    ///   - destination: where it goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: as a send over a connection.
    @inlinable @inline(__always)
    public mutating func post(
        _ operation: SendOperation, inline bytes: RawSpan, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let code = withExtendedLifetime(destination) {
            unsafePost(destination.addressed(operation), inline: bytes, id, flags)
        }
        if code != 0 { throw inlineFailure(operation.opcodeRaw, bytes.byteCount, code) }
    }

    /// Posts through the provider's function: 0 or an errno value.
    @inlinable @inline(__always)
    func unsafePost(
        _ operation: SendOperation, _ elements: UnsafePointer<ibv_sge>?, _ count: Int32, _ id: UInt64, _ flags: UInt32
    ) -> Int32 {
        rdma_post_one_send(
            raw, id, ibv_wr_opcode(rawValue: operation.opcodeRaw), operation.immediate, operation.word0,
            operation.word1, operation.word2, operation.word3, operation.remoteSRQ, flags, elements, count)
    }

    /// Posts bytes, which the provider copies before it answers.
    @inlinable @inline(__always)
    func unsafePost(_ operation: SendOperation, inline bytes: RawSpan, _ id: UInt64, _ flags: SendFlags) -> Int32 {
        bytes.withUnsafeBytes { buffer in
            var element = ibv_sge(
                addr: UInt64(UInt(bitPattern: buffer.baseAddress)), length: UInt32(clamping: buffer.count), lkey: 0)
            return unsafePost(operation, &element, 1, id, flags.rawValue | SendFlags.inlineBit)
        }
    }
}

extension SendFlags {
    /// IBV_SEND_INLINE: it has no name in public, because it makes the address of a slice unsafe.
    @inlinable static var inlineBit: UInt32 { 1 << 3 }
}

extension Span<MemoryRegion.Slice> {
    /// The slices as verbs.h's list.
    @inlinable @inline(__always)
    func withUnsafeElements(_ body: (UnsafePointer<ibv_sge>?, Int32) -> Int32) -> Int32 {
        withUnsafeBytes { bytes in
            // The layouts are one: a Slice is an ibv_sge and nothing else.
            body(bytes.baseAddress?.assumingMemoryBound(to: ibv_sge.self), Int32(clamping: count))
        }
    }
}
