/// The storage of a shared receive queue (`struct rxe_srq` of the kernel's rxe).
struct SharedReceiveQueueStorage: ~Copyable {
    /// Replaced by `Engine.resize`.
    var ring: Ring
    let maxSGE: UInt32
    let protectionDomain: UInt32
    let core: UnsafeMutablePointer<Core>
    let event: UnsafeMutablePointer<EventNode>
    let userData: UnsafeMutableRawPointer?
    /// The number of receive work requests below which IBV_EVENT_SRQ_LIMIT_REACHED is reported; 0 for no event.
    var limit: UInt32
    var users = 0
    /// Of a queue for XRC: its number, its XRC domain and its completion queue. The number of another queue is 0.
    var number: UInt32 = 0
    var xrcDomain: UnsafeMutablePointer<XRCDomainStorage>?
    var completions: UnsafeMutablePointer<CompletionQueueStorage>?
}

/// A shared receive queue (`struct ibv_srq`). The handle is not valid any more after `Engine.destroy`.
///
/// `stageReceive` and `commitReceives` do not need the engine's lock, but only one thread at a time may post.
@frozen
public struct SharedReceiveQueue: Hashable, @unchecked Sendable {
    /// The address of the engine's storage, which identifies the shared receive queue, as the address of a
    /// `struct ibv_srq` does in libibverbs.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<SharedReceiveQueueStorage> {
        identity.assumingMemoryBound(to: SharedReceiveQueueStorage.self)
    }

    init(_ storage: UnsafeMutablePointer<SharedReceiveQueueStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// The number of receive work requests that it holds (`ibv_srq_attr.max_wr`).
    public var capacity: Int { Int(storage.pointee.ring.limit) }

    /// The number of SGEs that a receive work request may have (`ibv_srq_attr.max_sge`).
    public var maxSGE: Int { Int(storage.pointee.maxSGE) }

    /// The pointer that was passed to `Engine.createSharedReceiveQueue` (`srq_context`).
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// The number by which XRC requests name it, 24 bits (`ibv_get_srq_num`); nil for a queue that was not made for XRC.
    public var number: UInt32? { storage.pointee.number == 0 ? nil : storage.pointee.number }

    /// Stages a receive work request (`ibv_post_srq_recv`). The engine does not read it before `commitReceives`.
    ///
    /// - Parameters:
    ///   - id: Returned as the completion's `id` (`wr_id`).
    ///   - sgList: The `count` SGEs; the list is copied.
    ///   - count: The number of SGEs, 0 to `maxSGE`.
    /// - Returns: `.success`; ENOMEM when the queue is full; EINVAL for too many SGEs.
    public func stageReceive(id: UInt64, sgList: UnsafePointer<SGE>?, count: Int) -> Errno {
        storage.pointee.ring.stageReceive(
            id: id, sgList: sgList, count: count, most: Int(storage.pointee.maxSGE))
    }

    /// Publishes the staged receive work requests to the engine (`ibv_post_srq_recv`). Requesters that received an RNR
    /// NAK send again when their RNR timer expires.
    public func commitReceives() { _ = storage.pointee.ring.publish() }
}
