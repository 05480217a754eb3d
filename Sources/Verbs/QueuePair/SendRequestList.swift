import CIBVerbs
import CProviderABI
import SystemPackage

/// Send work requests that are posted together, in room that is allocated once and used again and again.
///
/// One post of a list rings the device's doorbell once. A list can be posted several times; it keeps its requests
/// until `removeAll`.
public struct SendRequestList: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let requests: UnsafeMutablePointer<ibv_send_wr>
    @usableFromInline let elements: UnsafeMutablePointer<ibv_sge>
    @usableFromInline let inlineBytes: UnsafeMutableRawPointer
    /// Address handles of datagrams: they stay as long as the list holds the request.
    @usableFromInline let handles: UnsafeMutablePointer<AddressHandle?>
    @usableFromInline let inlineCapacity: Int
    @usableFromInline let sliceCapacity: Int
    /// How many requests it has room for.
    public let capacity: Int
    @usableFromInline var taken = 0
    @usableFromInline var takenHandles = false
    /// Whether any request may still hold operands of an operation: then each one that has none must be cleared, or
    /// a send would carry the address handle of an earlier one.
    @usableFromInline var hasOperands = false

    /// Room for `capacity` requests, each of at most `slices` slices or `inlineBytes` bytes of inline data.
    public init(capacity: Int, slices: Int = 1, inlineBytes: Int = 0) {
        self.capacity = max(capacity, 1)
        sliceCapacity = max(slices, 1)
        inlineCapacity = max(inlineBytes, 0)
        requests = .allocate(capacity: self.capacity)
        requests.initialize(repeating: ibv_send_wr(), count: self.capacity)
        elements = .allocate(capacity: self.capacity * sliceCapacity)
        elements.initialize(repeating: ibv_sge(), count: self.capacity * sliceCapacity)
        self.inlineBytes = .allocate(byteCount: max(self.capacity * inlineCapacity, 1), alignment: 16)
        handles = .allocate(capacity: self.capacity)
        handles.initialize(repeating: nil, count: self.capacity)
        for index in 0..<self.capacity {
            requests[index].sg_list = elements + index * sliceCapacity
            requests[index].next = index + 1 < self.capacity ? requests + index + 1 : nil
        }
    }

    deinit {
        handles.deinitialize(count: capacity)
        handles.deallocate()
        inlineBytes.deallocate()
        elements.deallocate()
        requests.deallocate()
    }

    /// How many requests it holds.
    @inlinable public var count: Int { taken }
    /// Whether it holds none.
    @inlinable public var isEmpty: Bool { taken == 0 }
    /// Whether it has no room for another.
    @inlinable public var isFull: Bool { taken == capacity }

    /// Forgets all requests. Those that were posted go on.
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

    /// Adds a request with one slice.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slice: its data, or where the data of a read or atomic goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable @inline(__always)
    public mutating func append(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let request = try add(operation, id, flags.rawValue)
        request.pointee.sg_list[0] = slice.raw
        request.pointee.num_sge = 1
    }

    /// Adds `count` requests with one slice each: the cheapest way to build a chain.
    ///
    /// - Parameters:
    ///   - count: how many.
    ///   - make: answers the request at an index, from 0 to `count` - 1.
    /// - Throws: `ENOMEM` when the list has no room for all of them; it then is as it was.
    @inlinable @inline(__always)
    public mutating func append(count: Int, _ make: (_ index: Int) -> SendRequest) throws(VerbsError) {
        guard count <= capacity - taken else { throw full() }
        // In locals: for all the compiler knows, a store into a request could change the list itself.
        let firstRequest = requests + taken
        let firstElement = elements + taken * sliceCapacity
        let stride = sliceCapacity
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
            firstElement[index &* stride] = made.slice.raw
            index &+= 1
        }
        self.hasOperands = hasOperands
        taken += max(count, 0)
    }

    /// Adds a request that gathers several slices, or has none.
    ///
    /// - Parameters:
    ///   - operation: what it does.
    ///   - slices: its data, piece by piece.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more slices than it was made for.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, slices: Span<MemoryRegion.Slice>, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        guard slices.count <= sliceCapacity else { throw tooMuch(slices.count, sliceCapacity, "slices") }
        let request = try add(operation, id, flags.rawValue)
        for index in 0..<slices.count { request.pointee.sg_list[index] = slices[index].raw }
        request.pointee.num_sge = Int32(truncatingIfNeeded: slices.count)
    }

    /// Adds a request whose data is copied, at once into the list and when posted into the request.
    ///
    /// - Parameters:
    ///   - operation: what it does: a send or write.
    ///   - bytes: its data.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more bytes than it was made for.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, inline bytes: RawSpan, id: UInt64 = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        guard bytes.byteCount <= inlineCapacity else { throw tooMuch(bytes.byteCount, inlineCapacity, "bytes") }
        let room = inlineBytes + taken * inlineCapacity
        let request = try add(operation, id, flags.rawValue | SendFlags.inlineBit)
        bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { room.copyMemory(from: base, byteCount: source.count) }
        }
        request.pointee.sg_list[0] = ibv_sge(
            addr: UInt64(UInt(bitPattern: room)), length: UInt32(truncatingIfNeeded: bytes.byteCount), lkey: 0)
        request.pointee.num_sge = 1
    }

    /// Adds a datagram with one slice. The list keeps the destination's address handle.
    ///
    /// - Parameters:
    ///   - operation: a send.
    ///   - slice: its data.
    ///   - destination: where it goes.
    ///   - id: is in its completion.
    ///   - flags: how it is treated; reported by default.
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable
    public mutating func append(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, to destination: DatagramDestination, id: UInt64 = 0,
        flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let request = try add(destination.addressed(operation), id, flags.rawValue)
        request.pointee.sg_list[0] = slice.raw
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

/// A send work request with one slice, as a value: what a list of requests is filled with.
@frozen public struct SendRequest: Sendable {
    /// What it does.
    public var operation: SendOperation
    /// Its data, or where the data of a read or atomic goes.
    public var slice: MemoryRegion.Slice
    /// Is in its completion.
    public var id: UInt64
    /// How it is treated.
    public var flags: SendFlags

    /// A request; its completion is reported by default.
    @inlinable @inline(__always)
    public init(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, id: UInt64 = 0, flags: SendFlags = .signaled
    ) {
        self.operation = operation
        self.slice = slice
        self.id = id
        self.flags = flags
    }
}

extension QueuePair {
    /// Posts all requests of a list, in order: ibv_post_send(3).
    ///
    /// - Throws: as a single post; `VerbsError.postedCount` says how many, from the first on, were taken.
    @inlinable @inline(__always)
    public mutating func post(_ list: borrowing SendRequestList) throws(VerbsError) {
        guard list.taken > 0 else { return }
        let last = list.requests + (list.taken - 1)
        let next = last.pointee.next
        last.pointee.next = nil
        var bad: UnsafeMutablePointer<ibv_send_wr>?
        let code = raw.pointee.context.pointee.ops.post_send.unsafelyUnwrapped(raw, list.requests, &bad)
        last.pointee.next = next
        if code != 0 { throw sendFailure(list.requests, list.taken, bad, code) }
    }

    /// What to throw when a list was refused from `bad` on.
    @usableFromInline @inline(never)
    func sendFailure(
        _ requests: UnsafeMutablePointer<ibv_send_wr>, _ count: Int, _ bad: UnsafeMutablePointer<ibv_send_wr>?,
        _ code: Int32
    ) -> VerbsError {
        let posted = min(max(bad.map { $0 - requests } ?? 0, 0), count)
        let refused = requests[min(posted, count - 1)]
        return sendFailure(refused.opcode.rawValue, slices: Int(refused.num_sge), code, posted: posted)
    }
}
