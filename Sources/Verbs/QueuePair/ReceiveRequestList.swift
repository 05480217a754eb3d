import CIBVerbs
import SystemPackage

/// Receive work requests that are posted together, in room that is allocated once and used again and again.
///
/// A list can be posted several times; it keeps its requests until `removeAll`.
public struct ReceiveRequestList: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let requests: UnsafeMutablePointer<ibv_recv_wr>
    @usableFromInline let elements: UnsafeMutablePointer<ibv_sge>
    @usableFromInline let sliceCapacity: Int
    /// How many requests it has room for.
    public let capacity: Int
    @usableFromInline var taken = 0

    /// Room for `capacity` requests, each of at most `slices` slices.
    public init(capacity: Int, slices: Int = 1) {
        self.capacity = max(capacity, 1)
        sliceCapacity = max(slices, 1)
        requests = .allocate(capacity: self.capacity)
        requests.initialize(repeating: ibv_recv_wr(), count: self.capacity)
        elements = .allocate(capacity: self.capacity * sliceCapacity)
        elements.initialize(repeating: ibv_sge(), count: self.capacity * sliceCapacity)
        for index in 0..<self.capacity {
            requests[index].sg_list = elements + index * sliceCapacity
            requests[index].next = index + 1 < self.capacity ? requests + index + 1 : nil
        }
    }

    deinit {
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
    @inlinable public mutating func removeAll() { taken = 0 }

    /// Adds a request with one slice.
    ///
    /// - Parameters:
    ///   - slice: where the data goes.
    ///   - id: is in its completion.
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable @inline(__always)
    public mutating func append(_ slice: MemoryRegion.Slice, id: UInt64 = 0) throws(VerbsError) {
        let request = try add(id)
        request.pointee.sg_list[0] = slice.raw
        request.pointee.num_sge = 1
    }

    /// Adds a request that scatters to several slices, or has none.
    ///
    /// - Parameters:
    ///   - slices: where the data goes, piece by piece.
    ///   - id: is in its completion.
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more slices than it was made for.
    @inlinable
    public mutating func append(slices: Span<MemoryRegion.Slice>, id: UInt64 = 0) throws(VerbsError) {
        guard slices.count <= sliceCapacity else {
            throw refusal(.invalidArgument, "\(slices.count) slices, but it was made for \(sliceCapacity)")
        }
        let request = try add(id)
        for index in 0..<slices.count { request.pointee.sg_list[index] = slices[index].raw }
        request.pointee.num_sge = Int32(truncatingIfNeeded: slices.count)
    }

    @inlinable @inline(__always)
    mutating func add(_ id: UInt64) throws(VerbsError) -> UnsafeMutablePointer<ibv_recv_wr> {
        guard taken < capacity else {
            throw refusal(.noMemory, "it has room for \(capacity) requests: post them and call removeAll")
        }
        let request = requests + taken
        request.pointee.wr_id = id
        taken += 1
        return request
    }

    @usableFromInline @inline(never)
    func refusal(_ errno: Errno, _ hint: String) -> VerbsError {
        VerbsError(
            .postReceive, errno: errno, object: VerbsObject("receive request list", device: ""), hint: hint)
    }

    /// The last request; nil when the list is empty.
    @inlinable @inline(__always)
    var last: UnsafeMutablePointer<ibv_recv_wr>? { taken > 0 ? requests + (taken - 1) : nil }
}
