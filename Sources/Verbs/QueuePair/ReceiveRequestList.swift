import CIBVerbs
import CProviderABI
import SystemPackage

/// A chain of receive work requests (`struct ibv_recv_wr`) in memory that is allocated once.
///
/// A list can be posted several times. It keeps its requests until `removeAll`.
public struct ReceiveRequestList: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let requests: UnsafeMutablePointer<ibv_recv_wr>
    @usableFromInline let sges: UnsafeMutablePointer<ibv_sge>
    @usableFromInline let maxSGE: Int
    /// The largest number of requests.
    public let capacity: Int
    @usableFromInline var taken = 0

    /// Makes a list of at most `capacity` requests, each with at most `maxSGE` SGEs. Both are at least 1.
    public init(capacity: Int, maxSGE: Int = 1) {
        self.capacity = max(capacity, 1)
        self.maxSGE = max(maxSGE, 1)
        requests = .allocate(capacity: self.capacity)
        requests.initialize(repeating: ibv_recv_wr(), count: self.capacity)
        sges = .allocate(capacity: self.capacity * self.maxSGE)
        sges.initialize(repeating: ibv_sge(), count: self.capacity * self.maxSGE)
        for index in 0..<self.capacity {
            requests[index].sg_list = sges + index * self.maxSGE
            requests[index].next = index + 1 < self.capacity ? requests + index + 1 : nil
        }
    }

    deinit {
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
    @inlinable public mutating func removeAll() { taken = 0 }

    /// Appends a request with one SGE.
    ///
    /// - Parameters:
    ///   - sge: The buffer (`ibv_recv_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    /// - Throws: `ENOMEM` when the list is full.
    @inlinable @inline(__always)
    public mutating func append(_ sge: ScatterGatherElement, id: UInt64 = 0) throws(VerbsError) {
        let request = try add(id)
        request.pointee.sg_list[0] = sge.raw
        request.pointee.num_sge = 1
    }

    /// Appends a request with any number of SGEs.
    ///
    /// - Parameters:
    ///   - sgList: SGEs of the buffer, in order (`ibv_recv_wr.sg_list`).
    ///   - id: Returned as the completion's `id` (`wr_id`).
    /// - Throws: `ENOMEM` when the list is full, `EINVAL` for more SGEs than `maxSGE`.
    @inlinable
    public mutating func append(sgList: Span<ScatterGatherElement>, id: UInt64 = 0) throws(VerbsError) {
        guard sgList.count <= maxSGE else {
            throw refusal(.invalidArgument, "\(sgList.count) SGEs, but it was made for \(maxSGE)")
        }
        let request = try add(id)
        for index in 0..<sgList.count { request.pointee.sg_list[index] = sgList[index].raw }
        request.pointee.num_sge = Int32(truncatingIfNeeded: sgList.count)
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

    /// The last request, or nil when the list is empty.
    @inlinable @inline(__always)
    var last: UnsafeMutablePointer<ibv_recv_wr>? { taken > 0 ? requests + (taken - 1) : nil }
}
