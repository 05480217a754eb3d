import CIBVerbs
import CProviderABI
import SystemPackage

/// A queue for receive work requests: a `QueuePair`, a `SharedReceiveQueue` or a `WorkQueue`.
///
/// Posting needs exclusive access to the value. It allocates nothing and never waits. It reports only the errors that
/// are known immediately; all others arrive as the status of a completion.
public protocol ReceiveQueue: ~Copyable {
    /// Posts a chain of work requests through the provider's function, unchecked: ibv_post_recv(3),
    /// ibv_post_srq_recv(3) or ibv_post_wq_recv(3).
    ///
    /// - Parameters:
    ///   - first: The first request of the chain. Its memory must stay registered until it completes.
    ///   - refused: Set to the first request that was not posted, after an error (`bad_wr`).
    /// - Returns: 0 or an errno value.
    mutating func unsafePostReceive(
        _ first: UnsafeMutablePointer<ibv_recv_wr>, _ refused: inout UnsafeMutablePointer<ibv_recv_wr>?
    ) -> Int32

    /// Makes the error for a work request that the provider refused.
    ///
    /// - Parameters:
    ///   - sgeCount: Number of SGEs of the request.
    ///   - code: The errno value.
    ///   - posted: Number of requests of the chain that were posted.
    func receiveFailure(sgeCount: Int, _ code: Int32, posted: Int) -> VerbsError
}

extension ReceiveQueue where Self: ~Copyable {
    /// Posts one receive work request with one SGE: ibv_post_recv(3).
    ///
    /// On UD the first 40 bytes are reserved for the GRH, also when the packet has none (IBTA volume 1, 11.4.1.2).
    ///
    /// - Parameters:
    ///   - sge: The buffer (`ibv_recv_wr.sg_list`). It must stay registered until the request completes.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    /// - Throws: `ENOMEM` when the queue is full; `EINVAL` for more SGEs than the queue was made for, and on a queue
    ///   pair that is in state RESET or has a shared receive queue.
    @inlinable @inline(__always)
    public mutating func postReceive(_ sge: ScatterGatherElement, id: UInt64 = 0) throws(VerbsError) {
        var raw = sge.raw
        let code = unsafePostReceive(&raw, 1, id)
        if code != 0 { throw receiveFailure(sgeCount: 1, code, posted: 0) }
    }

    /// Posts one receive work request with any number of SGEs: ibv_post_recv(3).
    ///
    /// - Parameters:
    ///   - sgList: SGEs of the buffer, in order (`ibv_recv_wr.sg_list`). The list may be reused immediately.
    ///   - id: Returned as the completion's `id` (`wr_id`).
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postReceive(sgList: Span<ScatterGatherElement>, id: UInt64 = 0) throws(VerbsError) {
        let code = sgList.withUnsafeSGEs { sges, count in unsafePostReceive(sges, count, id) }
        if code != 0 { throw receiveFailure(sgeCount: sgList.count, code, posted: 0) }
    }

    /// Posts one receive work request without a buffer: ibv_post_recv(3). It is consumed by a message without data or
    /// by an RDMA write with immediate data.
    ///
    /// - Parameter id: Returned as the completion's `id` (`wr_id`).
    /// - Throws: The errors of posting one SGE.
    @inlinable @inline(__always)
    public mutating func postReceive(id: UInt64 = 0) throws(VerbsError) {
        let code = unsafePostReceive(nil, 0, id)
        if code != 0 { throw receiveFailure(sgeCount: 0, code, posted: 0) }
    }

    /// Posts all requests of a list, in order: ibv_post_recv(3).
    ///
    /// - Throws: The errors of posting one request. `VerbsError.postedCount` is the number of requests, from the first,
    ///   that were posted.
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
            throw receiveFailure(sgeCount: Int(list.requests[posted].num_sge), code, posted: posted)
        }
    }

    /// Posts one request from the stack. The provider copies it before it returns.
    @inlinable @inline(__always)
    mutating func unsafePostReceive(_ sges: UnsafePointer<ibv_sge>?, _ count: Int32, _ id: UInt64) -> Int32 {
        var request = ibv_recv_wr(
            wr_id: id, next: nil, sg_list: UnsafeMutablePointer(mutating: sges), num_sge: count)
        var refused: UnsafeMutablePointer<ibv_recv_wr>?
        return unsafePostReceive(&request, &refused)
    }
}
