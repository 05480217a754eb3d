import CIBVerbs
import CProviderABI
import CProviderCore
import SystemPackage

/// A chain of send work requests (`struct ibv_send_wr`) in memory that is allocated once.
///
/// Posting a list rings the device's doorbell once. A list can be posted several times. It keeps its requests until
/// `removeAll`.
public struct SendRequestList: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let requests: UnsafeMutablePointer<ibv_send_wr>
    @usableFromInline let sges: UnsafeMutablePointer<ibv_sge>
    @usableFromInline let inlineData: UnsafeMutableRawPointer
    /// Address handles of datagrams. They stay alive as long as the list has the request.
    @usableFromInline let handles: UnsafeMutablePointer<AddressHandle?>
    @usableFromInline let maxInlineData: Int
    @usableFromInline let maxSGE: Int
    /// The largest number of requests.
    public let capacity: Int
    @usableFromInline var taken = 0
    @usableFromInline var takenHandles = false
    /// Whether a request of the list may have operands from an earlier use. The operands of new requests must then be
    /// cleared: a send would otherwise have the address handle of an earlier request.
    @usableFromInline var hasOperands = false

    /// Makes a list of at most `capacity` requests, each with at most `maxSGE` SGEs or `maxInlineData` bytes of inline
    /// data. `capacity` and `maxSGE` are at least 1.
    public init(capacity: Int, maxSGE: Int = 1, maxInlineData: Int = 0) {
        self.capacity = max(capacity, 1)
        self.maxSGE = max(maxSGE, 1)
        self.maxInlineData = max(maxInlineData, 0)
        requests = .allocate(capacity: self.capacity)
        requests.initialize(repeating: ibv_send_wr(), count: self.capacity)
        sges = .allocate(capacity: self.capacity * self.maxSGE)
        sges.initialize(repeating: ibv_sge(), count: self.capacity * self.maxSGE)
        inlineData = .allocate(byteCount: max(self.capacity * self.maxInlineData, 1), alignment: 16)
        handles = .allocate(capacity: self.capacity)
        handles.initialize(repeating: nil, count: self.capacity)
        for index in 0..<self.capacity {
            requests[index].sg_list = sges + index * self.maxSGE
            requests[index].next = index + 1 < self.capacity ? requests + index + 1 : nil
        }
    }

    deinit {
        handles.deinitialize(count: capacity)
        handles.deallocate()
        inlineData.deallocate()
        sges.deallocate()
        requests.deallocate()
    }

    /// The number of requests.
    @inlinable public var count: Int { taken }
    /// Whether the list has no requests.
    @inlinable public var isEmpty: Bool { taken == 0 }
    /// Whether `count` equals `capacity`.
    @inlinable public var isFull: Bool { taken == capacity }

    /// Removes all requests from the list. Requests that were posted are not affected.
    @inlinable @inline(__always)
    public mutating func removeAll() {
        if takenHandles { releaseHandles() }
        taken = 0
    }

    @usableFromInline @inline(never)
    mutating func releaseHandles() {
        for index in 0..<taken { handles[index] = nil }
        takenHandles = false
    }

    /// Appends a request with one SGE.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sge: The data, or the buffer for the result of a read or atomic (`ibv_send_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, _ sge: ScatterGatherElement, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let request = try add(operation, id, flags.rawValue)
        request.pointee.sg_list[0] = sge.raw
        request.pointee.num_sge = 1
    }

    /// Appends `count` requests with one SGE each. This is the fastest way to fill a list.
    ///
    /// - Parameters:
    ///   - count: The number of requests.
    ///   - make: Returns the request with an index from 0 to `count` - 1.
    /// - Throws: `ENOMEM` when the list has no room for all of them. The list is unchanged then.
    @inlinable @inline(__always)
    public mutating func append(count: Int, _ make: (_ index: Int) -> SendRequest) throws(VerbsError) {
        guard count <= capacity - taken else { throw full() }
        // Local copies, since the compiler must assume that a store to a request changes the list itself.
        let firstRequest = requests + taken
        let firstSGE = sges + taken * maxSGE
        let stride = maxSGE
        let mustClear = hasOperands
        var hasOperands = mustClear
        var index = 0
        while index < count {
            let made = make(index)
            let request = firstRequest + index
            request.pointee.num_sge = 1
            rdma_set_send_wr(
                request, made.id, ibv_wr_opcode(rawValue: made.operation.opcodeRaw), made.operation.immediate,
                made.flags.rawValue)
            if mustClear || made.operation.hasOperands {
                setOperands(request, made.operation)
                hasOperands = true
            }
            firstSGE[index &* stride] = made.sge.raw
            index &+= 1
        }
        self.hasOperands = hasOperands
        taken += max(count, 0)
    }

    /// Appends a request with any number of SGEs.
    ///
    /// - Parameters:
    ///   - operation: Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    ///   - sgList: SGEs of the data, in order (`ibv_send_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more SGEs than `maxSGE`.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, sgList: Span<ScatterGatherElement>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        guard sgList.count <= maxSGE else { throw tooMuch(sgList.count, maxSGE, "SGEs") }
        let request = try add(operation, id, flags.rawValue)
        for index in 0..<sgList.count { request.pointee.sg_list[index] = sgList[index].raw }
        request.pointee.num_sge = Int32(truncatingIfNeeded: sgList.count)
    }

    /// Appends a request with inline data (`IBV_SEND_INLINE`). The list copies the data.
    ///
    /// - Parameters:
    ///   - operation: A send or an RDMA write.
    ///   - bytes: The data.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more bytes than `maxInlineData`.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        guard bytes.byteCount <= maxInlineData else { throw tooMuch(bytes.byteCount, maxInlineData, "bytes") }
        let room = inlineData + taken * maxInlineData
        let request = try add(operation, id, flags.rawValue | SendFlags.inlineBit)
        bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { room.copyMemory(from: base, byteCount: source.count) }
        }
        request.pointee.sg_list[0] = ibv_sge(
            addr: UInt64(UInt(bitPattern: room)), length: UInt32(truncatingIfNeeded: bytes.byteCount), lkey: 0)
        request.pointee.num_sge = 1
    }

    /// Appends a datagram with one SGE. The list keeps the destination's address handle alive.
    ///
    /// - Parameters:
    ///   - operation: A send, with or without immediate data.
    ///   - sge: The data (`ibv_send_wr.sg_list`).
    ///   - destination: Address handle, QPN and Q_Key of the receiver (`ibv_send_wr.wr.ud`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - flags: Send flags (`ibv_send_flags`). The default, `.signaled`, produces a completion.
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, _ sge: ScatterGatherElement, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let request = try add(destination.addressed(operation), id, flags.rawValue)
        request.pointee.sg_list[0] = sge.raw
        request.pointee.num_sge = 1
        handles[taken - 1] = destination.handle
        takenHandles = true
    }

    @inlinable @inline(__always)
    mutating func add(
        _ operation: SendOperation, _ id: UInt64, _ flags: UInt32
    ) throws(VerbsError) -> UnsafeMutablePointer<ibv_send_wr> {
        guard taken < capacity else { throw full() }
        let request = requests + taken
        rdma_set_send_wr(
            request, id, ibv_wr_opcode(rawValue: operation.opcodeRaw), operation.immediate, flags)
        if hasOperands || operation.hasOperands {
            setOperands(request, operation)
            hasOperands = true
        }
        taken += 1
        return request
    }

    @inlinable @inline(__always)
    func setOperands(_ request: UnsafeMutablePointer<ibv_send_wr>, _ operation: SendOperation) {
        rdma_set_operands(
            request, operation.word0, operation.word1, operation.word2, operation.word3, operation.remoteSRQ)
    }

    @usableFromInline @inline(never)
    func full() -> VerbsError {
        VerbsError(
            .postSend, errno: .noMemory, object: VerbsObject("send request list", device: ""),
            hint: "it has room for \(capacity) requests: post them and call removeAll")
    }

    @usableFromInline @inline(never)
    func tooMuch(_ given: Int, _ limit: Int, _ what: String) -> VerbsError {
        VerbsError(
            .postSend, errno: .invalidArgument, object: VerbsObject("send request list", device: ""),
            hint: "\(given) \(what), but it was made for \(limit)")
    }
}

/// A send work request with one SGE, as a value (`struct ibv_send_wr`). `SendRequestList.append(count:_:)` takes them.
@frozen public struct SendRequest: Hashable, Sendable {
    /// Opcode and operands (`ibv_send_wr.opcode`, `wr`).
    public var operation: SendOperation
    /// The data, or the buffer for the result of a read or atomic (`ibv_send_wr.sg_list`).
    public var sge: ScatterGatherElement
    /// Returned as the completion's `id` (`wr_id`).
    public var id: UInt64
    /// Send flags (`ibv_send_flags`).
    public var flags: SendFlags

    /// Makes a request. By default it produces a completion.
    @inlinable @inline(__always)
    public init(
        _ operation: SendOperation, _ sge: ScatterGatherElement, id: UInt64 = 0, flags: SendFlags = .signaled
    ) {
        self.operation = operation
        self.sge = sge
        self.id = id
        self.flags = flags
    }
}

extension QueuePair {
    /// Posts all requests of a list, in order: ibv_post_send(3).
    ///
    /// - Throws: The errors of posting one request. `VerbsError.postedCount` is the number of requests, from the first,
    ///   that were posted.
    @inlinable @inline(__always)
    public mutating func postSend(_ list: borrowing SendRequestList) throws(VerbsError) {
        guard list.taken > 0 else { return }
        let last = list.requests + (list.taken - 1)
        let next = last.pointee.next
        last.pointee.next = nil
        var bad: UnsafeMutablePointer<ibv_send_wr>?
        let code = raw.pointee.context.pointee.ops.post_send.unsafelyUnwrapped(raw, list.requests, &bad)
        last.pointee.next = next
        if code != 0 { throw sendFailure(list.requests, list.taken, bad, code) }
    }

    /// Makes the error for a list of which the provider refused `bad` and all that follow.
    @usableFromInline @inline(never)
    func sendFailure(
        _ requests: UnsafeMutablePointer<ibv_send_wr>, _ count: Int, _ bad: UnsafeMutablePointer<ibv_send_wr>?,
        _ code: Int32
    ) -> VerbsError {
        let posted = min(max(bad.map { $0 - requests } ?? 0, 0), count)
        let refused = requests[min(posted, count - 1)]
        return sendFailure(refused.opcode.rawValue, sgeCount: Int(refused.num_sge), code, posted: posted)
    }
}
