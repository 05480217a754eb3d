import CIBVerbs
import SystemPackage

/// Where receive work requests are posted: a queue pair, a shared receive queue or a work queue.
///
/// Whoever holds the value posts; nobody else can. Posting allocates nothing and never waits. What it says about a
/// request is only what can be known at once; the rest comes as a completion.
public protocol ReceiveQueue: ~Copyable {
    /// Posts a chain of work requests through the provider's function, unchecked: ibv_post_recv(3),
    /// ibv_post_srq_recv(3) or ibv_post_wq_recv(3).
    ///
    /// - Parameters:
    ///   - first: the first of them. Their memory regions must stay registered until they complete.
    ///   - refused: after an error the first that was not taken.
    /// - Returns: 0 or an errno value.
    mutating func unsafePostReceive(
        _ first: UnsafeMutablePointer<ibv_recv_wr>, _ refused: inout UnsafeMutablePointer<ibv_recv_wr>?
    ) -> Int32

    /// The error for a work request that was refused.
    ///
    /// - Parameters:
    ///   - slices: how many slices it has.
    ///   - code: the errno value.
    ///   - posted: how many work requests before it were taken.
    func receiveFailure(slices: Int, _ code: Int32, posted: Int) -> VerbsError
}

extension ReceiveQueue where Self: ~Copyable {
    /// Posts one receive work request with one slice.
    ///
    /// On UD the first 40 bytes are for the global route header, also where the packet has none.
    ///
    /// - Parameters:
    ///   - slice: where the data goes. It must stay registered until the request completes.
    ///   - id: is in its completion.
    /// - Throws: `ENOMEM` when the queue is full, `EINVAL` for too many slices, and on a queue pair in state RESET or
    ///   with a shared receive queue.
    @inlinable @inline(__always)
    public mutating func postReceive(_ slice: MemoryRegion.Slice, id: UInt64 = 0) throws(VerbsError) {
        var element = slice.raw
        let code = unsafePostReceive(&element, 1, id)
        if code != 0 { throw receiveFailure(slices: 1, code, posted: 0) }
    }

    /// Posts one receive work request that scatters to several slices, or has none.
    ///
    /// - Parameters:
    ///   - slices: where the data goes, piece by piece; the list itself may be reused at once.
    ///   - id: is in its completion.
    /// - Throws: as with one slice.
    @inlinable @inline(__always)
    public mutating func postReceive(slices: Span<MemoryRegion.Slice>, id: UInt64 = 0) throws(VerbsError) {
        let code = slices.withUnsafeElements { elements, count in unsafePostReceive(elements, count, id) }
        if code != 0 { throw receiveFailure(slices: slices.count, code, posted: 0) }
    }

    /// Posts one receive work request without room for data: for messages without data, such as a write with
    /// immediate data.
    ///
    /// - Parameter id: is in its completion.
    /// - Throws: as with one slice.
    @inlinable @inline(__always)
    public mutating func postReceive(id: UInt64 = 0) throws(VerbsError) {
        let code = unsafePostReceive(nil, 0, id)
        if code != 0 { throw receiveFailure(slices: 0, code, posted: 0) }
    }

    /// Posts all requests of a list, in order.
    ///
    /// - Throws: as a single post; `VerbsError.postedCount` says how many, from the first on, were taken.
    @inlinable
    public mutating func postReceive(_ list: borrowing ReceiveRequestList) throws(VerbsError) {
        guard let last = list.last else { return }
        let next = last.pointee.next
        last.pointee.next = nil
        var refused: UnsafeMutablePointer<ibv_recv_wr>?
        let code = unsafePostReceive(list.requests, &refused)
        last.pointee.next = next
        if code != 0 {
            let posted = min(max(refused.map { $0 - list.requests } ?? 0, 0), list.count - 1)
            throw receiveFailure(slices: Int(list.requests[posted].num_sge), code, posted: posted)
        }
    }

    /// Posts one work request, which the provider copies before it answers.
    @inlinable @inline(__always)
    mutating func unsafePostReceive(_ elements: UnsafePointer<ibv_sge>?, _ count: Int32, _ id: UInt64) -> Int32 {
        var request = ibv_recv_wr(
            wr_id: id, next: nil, sg_list: UnsafeMutablePointer(mutating: elements), num_sge: count)
        var refused: UnsafeMutablePointer<ibv_recv_wr>?
        return unsafePostReceive(&request, &refused)
    }
}
